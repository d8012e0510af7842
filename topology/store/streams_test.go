package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestDoctorBesideFollowers asks who made the topology invalid, by a client whose other watches ask etcd for progress all the time:
// what etcd answers them says nothing of the doctor's own watch.
func TestDoctorBesideFollowers(t *testing.T) {
	t.Parallel()
	s, client := open(t)
	apply(t, s, Change{Put: objects(example())})
	background(t, func(ctx context.Context) error {
		return s.Follow(ctx, nil, func(*topology.Snapshot) {})
	})
	background(t, func(ctx context.Context) error { // which has the follower ask for progress
		for n := 0; ctx.Err() == nil; n++ {
			if _, err := client.Put(ctx, "/isochrone/overrides/o", fmt.Sprint(n)); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return ctx.Err()
	})
	good := string(topology.MarshalValue(example().PoPs["sin1"]))
	began, n := time.Now(), 0
	for ; n < 100 || time.Since(began) < time.Second; n++ {
		made := put(t, client, "topology/pops/sin1", "invalid: yes\n")
		d, err := s.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.LastGood != made-1 && len(d.Culprits) == 0 {
			t.Fatalf("the %d. time: got culprits %v, last good %d, notes %q; want the edit of revision %d", n+1, d.Culprits, d.LastGood, d.Notes, made)
		}
		put(t, client, "topology/pops/sin1", good)
	}
}
