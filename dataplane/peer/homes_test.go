package peer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/topology"
)

func pool(ca *devca.CA) func() (*x509.CertPool, error) {
	return func() (*x509.CertPool, error) { return ca.Pool(), nil }
}

// nothing gives nothing.
type nothing struct{}

func (nothing) Give(_ context.Context, _ string, asks []quota.Ask) []quota.Given {
	return make([]quota.Given, len(asks))
}

func noTopology() *topology.Snapshot { return nil }

// world is a topology of six PoPs, at one address, with a key of a quota.
func world(t *testing.T, at netip.AddrPort, limit int64) (*topology.Snapshot, string) {
	t.Helper()
	pops := map[string]netip.AddrPort{}
	for _, name := range topology.ExamplePoPs {
		pops[name] = at
	}
	id, _, key, err := topology.NewKey(strings.NewReader(strings.Repeat("k", 25)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key.QuotaPerMinute = limit
	return &topology.Snapshot{
		Topology: topology.Example(netip.MustParseAddr("127.0.0.1"), pops, nil), Keys: topology.NewKeySet(map[string]*topology.Key{id: key}),
	}, id
}

func TestFind(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:8443")
	snap, _ := world(t, at, 1)
	all := snap.Topology
	all.Services["a.example"] = &topology.Service{PoPs: []string{"fra1"}}
	all.Services["z.example"] = &topology.Service{}
	all.PoPs["fra1"].State = topology.Draining
	all.PoPs["iad1"].State = topology.Disabled
	all.PoPs["gru1"].Addresses = nil
	for name, want := range map[string]string{"fra1": "a.example", "sin1": topology.ExampleService, "iad1": topology.ExampleService, "gru1": "", "other": ""} {
		got, ok := Find(all, name)
		if got.Service != want || ok != (want != "") || ok && !slices.Equal(got.Addrs, []netip.AddrPort{at}) {
			t.Errorf("%s: got %+v, %v; want %q", name, got, ok, want)
		}
	}
	if got := ActivePoPs(all); !slices.Equal(got, []string{"jnb1", "nrt1", "sin1"}) {
		t.Errorf("active are %v", got)
	}
}

func TestHomes(t *testing.T) {
	snap, id := world(t, netip.MustParseAddrPort("127.0.0.1:8443"), 299)
	secrets := [][]byte{secret}
	h := &Homes{Client: NewClient(ClientConfig{Name: "sin1", Secrets: func() [][]byte { return secrets }}), Snapshot: func() *topology.Snapshot { return snap }}
	home := h.Of(id, 299)
	if home != quota.HomeOf(id, ActivePoPs(snap.Topology)) || home == "" {
		t.Errorf("the home is %q", home)
	}
	if got := h.Of(id, 300); got != "" {
		t.Errorf("a large quota has the home %q", got)
	}
	snap, _ = world(t, netip.MustParseAddrPort("127.0.0.1:8443"), 299)
	snap.Topology.PoPs[home].State = topology.Disabled
	if got := h.Of(id, 1); got == home || got == "" {
		t.Errorf("when it is disabled, the home is %q", got)
	}
	secrets = nil
	if got := h.Of(id, 1); got != "" {
		t.Errorf("without a secret the home is %q", got)
	}
}

func TestQuotaAsks(t *testing.T) {
	many := quotaAsks{}
	for i := range quota.MaxAsks + 1 {
		many.Asks = append(many.Asks, quotaAsk{fmt.Sprint("k", i), 1, 1})
	}
	largest := quotaAsks{Asks: slices.Clone(many.Asks[:quota.MaxAsks])}
	for i := range largest.Asks {
		largest.Asks[i] = quotaAsk{fmt.Sprintf("%025d", i), 1 << 40, maxWant}
	}
	for _, test := range []struct {
		name string
		q    quotaAsks
		good bool
	}{
		{"none", quotaAsks{}, true}, {"the most", largest, true}, {"too many", many, false},
		{"no key", quotaAsks{[]quotaAsk{{"", 1, 1}}}, false}, {"no window", quotaAsks{[]quotaAsk{{"k", 0, 1}}}, false},
		{"nothing wanted", quotaAsks{[]quotaAsk{{"k", 1, 0}}}, false}, {"too much wanted", quotaAsks{[]quotaAsk{{"k", 1, maxWant + 1}}}, false},
		{"a key twice", quotaAsks{[]quotaAsk{{"k", 1, 1}, {"k", 2, 1}}}, false}, {"a long key", quotaAsks{[]quotaAsk{{strings.Repeat("k", 101), 1, 1}}}, false},
	} {
		if err := test.q.check(); (err == nil) != test.good {
			t.Errorf("%s: got %v", test.name, err)
		}
		if text, err := json.Marshal(test.q); test.good && (err != nil || len(text) > maxBody) {
			t.Errorf("%s: %d octets, %v", test.name, len(text), err)
		}
	}
}

// TestQuota has a PoP ask the home of a key over the network, until there is no more.
func TestQuota(t *testing.T) {
	store := quota.NewMemory(1)
	home := quota.New(quota.Config{PoP: "fra1", Store: store})
	var known atomic.Pointer[topology.Snapshot]
	p := startPoP(t, func(s *Server) { ServeQuota(s, home, known.Load) })
	snap, id := world(t, p.at, 7)
	known.Store(snap)
	only := *snap
	only.Topology = &topology.Topology{PoPs: map[string]*topology.PoP{"fra1": snap.Topology.PoPs["fra1"]}, Services: map[string]*topology.Service{service: {}}}
	secrets := func() [][]byte { return [][]byte{secret} }
	client := p.client(t, func(c *ClientConfig) {
		c.Secrets, c.Find = secrets, func(pop string) (Address, bool) { return Find(only.Topology, pop) }
	})
	other := quota.New(quota.Config{PoP: "sin1", Store: store, Homes: &Homes{Client: client, Snapshot: func() *topology.Snapshot { return &only }}})
	running, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- home.Run(running) }()
	go func() { ended <- other.Run(running) }()
	defer func() { stop(); <-ended; <-ended }()
	admitted := 0
	for {
		d, err := other.Admit(t.Context(), id, 7, time.Now())
		if errors.Is(err, quota.ErrAway) { // in the first moment
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !d.Admitted {
			break
		}
		admitted++
	}
	if admitted != 7 {
		t.Errorf("admitted %d of 7", admitted)
	}
	given, err := (&Homes{Client: client}).Ask(within(t), "fra1", []quota.Ask{{Key: id, Window: 1, Want: 1}, {Key: "nobody", Window: 1, Want: 1}})
	if err != nil || len(given) != 2 || !given[0].Spent || !given[1].Unsure {
		t.Errorf("got %+v, %v", given, err)
	}
	if _, err := (&Homes{Client: client}).Ask(within(t), "fra1", []quota.Ask{{Key: id, Window: 0, Want: 1}}); err == nil {
		t.Error("an ask without a window is taken")
	}
}
