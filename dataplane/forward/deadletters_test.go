package forward

import (
	"fmt"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// slowGrave is a spool whose dead letters wait for a slow disk.
type slowGrave struct {
	*spool.Spool
	gate chan struct{}
}

func (s *slowGrave) Bury(item *spool.Item, reason string) error {
	<-s.gate
	return s.Spool.Bury(item, reason)
}

// TestExpiryIsBounded has a thousand envelopes expire at once, faster than dead letters are written: no more of them are in memory than the
// bound says, others are delivered meanwhile, and each becomes a dead letter in the end.
func TestExpiryIsBounded(t *testing.T) {
	const many = 1000
	ap := newStore(t, "ap")
	gate := make(chan struct{})
	w := newWorld(t, map[string]string{"ap": ap.serve(t).URL}, nil, func(c *Config) { c.Spool = &slowGrave{c.Spool.(*spool.Spool), gate} })
	old := time.Now().Add(-defaultDeadAfter - 30*24*time.Hour)
	w.postAll(t, many, func(i int) string { return fmt.Sprint(i) }, func(e *spool.Envelope) { e.Received = old })
	w.run(t)
	young := w.post(t, "young", nil)
	if got := w.settles(t, 1)[young.ID]; !got.Acknowledged {
		t.Errorf("got %+v", got)
	}
	eventually(t, "as many letters as may wait", func() bool {
		w.Forwarder.mu.Lock()
		defer w.Forwarder.mu.Unlock()
		if w.unburied > maxUnburied {
			t.Fatalf("%d dead letters wait in memory", w.unburied)
		}
		return w.unburied == maxUnburied
	})
	close(gate)
	w.settles(t, many+1)
	eventually(t, "all to be counted", func() bool { return w.Stats().Dead["expired"] == many })
	if ap.count() != 1 {
		t.Errorf("%d were delivered", ap.count())
	}
}

// TestGivenBackIsNoRetry has envelopes go back to the spool that were never sent: they do not cost of the retry budget when they come again.
func TestGivenBackIsNoRetry(t *testing.T) {
	w := newWorld(t, map[string]string{"ap": "http://127.0.0.1:1"}, nil, nil)
	w.post(t, "body", nil)
	for _, sent := range []bool{false, true} {
		item, err := w.queue.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if item.Attempts != 0 {
			t.Errorf("got %d attempts before it was sent", item.Attempts)
		}
		w.Forwarder.mu.Lock()
		w.giveBack(&job{item: item, retry: sent})
		w.Forwarder.mu.Unlock()
	}
	if item, err := w.queue.Next(t.Context()); err != nil || item.Attempts != 1 {
		t.Errorf("got %+v, %v", item, err)
	}
}
