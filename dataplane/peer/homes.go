package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/topology"
)

// The names of the calls that there are.
const (
	quotaCall   = "quota"   // a home is asked
	ReceiptCall = "receipt" // what has become of a request, by cmd/isochrone
)

// quotaAsks is what a home is asked. It knows the quotas itself.
type quotaAsks struct {
	Asks []quotaAsk `json:"asks"`
}

type quotaAsk struct {
	Key    string `json:"key"` // its id
	Window int64  `json:"window"`
	Want   int64  `json:"want"`
}

type quotaAnswers struct {
	Given []quotaGiven `json:"given"`
}

type quotaGiven struct {
	Window int64 `json:"window,omitempty"`
	Given  int64 `json:"given,omitempty"`
	Limit  int64 `json:"limit,omitempty"`
	Left   int64 `json:"left,omitempty"`
	PoPs   int   `json:"pops,omitempty"`
	Spent  bool  `json:"spent,omitempty"`
	Unsure bool  `json:"unsure,omitempty"`
}

// maxWant bounds what is asked for of one key, far above what can wait.
const maxWant = 1 << 20

func (q *quotaAsks) check() error {
	if len(q.Asks) > quota.MaxAsks {
		return fmt.Errorf("%d asks: at most %d are taken", len(q.Asks), quota.MaxAsks)
	}
	seen := map[string]bool{}
	for _, ask := range q.Asks {
		if ask.Key == "" || len(ask.Key) > 100 || ask.Window < 1 || ask.Want < 1 || ask.Want > maxWant {
			return errors.New("want the id of a key, a window and how much is wanted")
		}
		if seen[ask.Key] {
			return fmt.Errorf("key %.40q is asked for twice", ask.Key)
		}
		seen[ask.Key] = true
	}
	return nil
}

// Giver gives some of its own grants, as *quota.Ledger does.
type Giver interface {
	Give(ctx context.Context, from string, asks []quota.Ask) []quota.Given
}

// ServeQuota has a server answer those that hold its PoP to be the home of keys. Keys that the newest snapshot does not have are given nothing.
func ServeQuota(s *Server, g Giver, snapshot func() *topology.Snapshot) {
	Handle(s, quotaCall, func(ctx context.Context, from string, q quotaAsks) (*quotaAnswers, error) {
		if err := q.check(); err != nil {
			return nil, &Error{http.StatusBadRequest, err.Error()}
		}
		answer := &quotaAnswers{Given: make([]quotaGiven, len(q.Asks))}
		snap := snapshot()
		var asks []quota.Ask
		var places []int
		for i, ask := range q.Asks {
			answer.Given[i].Unsure = true
			if snap == nil {
				continue
			}
			if key := snap.Keys.Lookup(ask.Key); key != nil && !key.Probe {
				asks = append(asks, quota.Ask{Key: ask.Key, Window: ask.Window, Limit: key.QuotaPerMinute, Want: min(ask.Want, key.QuotaPerMinute)})
				places = append(places, i)
			}
		}
		for i, given := range g.Give(ctx, from, asks) {
			answer.Given[places[i]] = quotaGiven(given)
		}
		return answer, nil
	})
}

// Homes implements quota.Homes by the topology and calls.
type Homes struct {
	Client   *Client
	Snapshot func() *topology.Snapshot

	active atomic.Pointer[activePoPs]
}

type activePoPs struct {
	of   *topology.Topology
	pops []string
}

// Of returns the home of a key, of the PoPs that are active and can be asked, if its quota is below quota.PerPoP for each of them.
func (h *Homes) Of(key string, limit int64) string {
	snap := h.Snapshot()
	if snap == nil || len(h.Client.config.Secrets()) == 0 {
		return ""
	}
	known := h.active.Load()
	if known == nil || known.of != snap.Topology {
		known = &activePoPs{of: snap.Topology, pops: ActivePoPs(snap.Topology)}
		h.active.Store(known)
	}
	if limit >= quota.PerPoP*int64(len(known.pops)) {
		return ""
	}
	return quota.HomeOf(key, known.pops)
}

// Ask implements quota.Homes.
func (h *Homes) Ask(ctx context.Context, home string, asks []quota.Ask) ([]quota.Given, error) {
	var q quotaAsks
	for _, ask := range asks {
		q.Asks = append(q.Asks, quotaAsk{Key: ask.Key, Window: ask.Window, Want: min(ask.Want, maxWant)})
	}
	var answer quotaAnswers
	if err := h.Client.Call(ctx, home, quotaCall, &q, &answer); err != nil {
		return nil, err
	}
	var given []quota.Given
	for _, one := range answer.Given {
		given = append(given, quota.Given(one))
	}
	return given, nil
}

// ActivePoPs returns the names of the PoPs that are active and can be asked, sorted.
func ActivePoPs(t *topology.Topology) (active []string) {
	for _, name := range slices.Sorted(maps.Keys(t.PoPs)) {
		if _, ok := Find(t, name); ok && t.PoPs[name].State == topology.Active {
			active = append(active, name)
		}
	}
	return active
}
