package forward

import (
	"net/http"
	"testing"

	"github.com/isochrone/isochrone/health"
)

// TestSeen has a cluster take envelopes, then fail, then be away, and asks what was met there and whether it is reached.
func TestSeen(t *testing.T) {
	ap := newStore(t, "ap")
	server := ap.serve(t)
	w := newWorld(t, map[string]string{"ap": server.URL}, nil, nil)
	w.run(t)
	if got := w.Reach(nil)[service]; !got.Here || got.Elsewhere {
		t.Errorf("before anything is known: %+v", got)
	}
	w.post(t, "one", nil)
	w.settles(t, 1)
	of := health.Target{Kind: health.Cluster, Name: "ap"}
	if got := w.Seen(); len(got) != 1 || got[0].Target != of || !got[0].OK || !got[0].Passive {
		t.Errorf("after a success: got %+v", got)
	}
	if got := w.Seen(); len(got) != 0 {
		t.Errorf("after nothing: got %+v", got)
	}
	if got := w.Reach(map[string]bool{"ap": true})[service]; got.Here || !got.Elsewhere {
		t.Errorf("when its own probes do not reach it: %+v", got)
	}
	ap.status.Store(http.StatusInternalServerError)
	w.post(t, "two", nil)
	var met []health.Observation
	eventually(t, "a failure is met", func() bool {
		met = w.Seen()
		return len(met) > 0
	})
	if len(met) != 1 || met[0].OK || met[0].Code != health.Traffic || met[0].Target != of {
		t.Errorf("after failures: got %+v", met)
	}
	eventually(t, "the breaker opens", func() bool { r := w.Reach(nil)[service]; return !r.Here && r.Elsewhere })
	w.verdicts.Store(&health.Verdicts{of: {Status: health.Down}})
	if got := w.Reach(nil)[service]; got.Here || got.Elsewhere {
		t.Errorf("when it is dead for all: %+v", got)
	}
	w.verdicts.Store(nil)
	ap.status.Store(http.StatusAccepted)
	w.settles(t, 2)
	eventually(t, "it is reached again", func() bool { return w.Reach(nil)[service].Here })
}
