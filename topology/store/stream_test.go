package store

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestOwnStream asks for the progress of one watch of a client: another watch of it is told nothing. Where they share a stream, it is told
// of a progress that may be none of its own: then a replay ended before it had begun, and the doctor found no culprit.
func TestOwnStream(t *testing.T) {
	t.Parallel()
	_, client := open(t)
	one, other := ownStream(t.Context()), ownStream(t.Context())
	first := client.Watch(one, "/isochrone/topology/", clientv3.WithPrefix())
	second := client.Watch(other, "/isochrone/topology/", clientv3.WithPrefix())
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	for range 5 {
		for answered := false; !answered; {
			select {
			case r := <-first:
				answered = r.IsProgressNotify()
			case r := <-second:
				t.Fatalf("the other watch is told %+v", r)
			case <-ask.C:
				if err := client.RequestProgress(one); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	select {
	case r := <-second:
		t.Errorf("the other watch is told %+v", r)
	case <-ask.C:
	}
}
