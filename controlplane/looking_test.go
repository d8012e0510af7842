package controlplane

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

func TestLooking(t *testing.T) {
	w := begin(t, nil)
	w.drain("sin1")
	w.down("fra1")
	c := w.client(Viewer)

	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answered := map[string]bool{}
	for _, p := range status.PoPs {
		answered[p.Name] = p.Answered
		if p.Name == "sin1" && !strings.Contains(p.Why, "trying") {
			t.Errorf("sin1: got why %q, want the override's reason", p.Why)
		}
	}
	if answered["sin1"] || answered["fra1"] || !answered["iad1"] || len(answered) != 6 {
		t.Errorf("answered: got %v", answered)
	}
	if len(status.Clusters) != 3 || len(status.Overrides) != 1 || status.Overrides[0].Author != "some operator" || status.Activity.DNS["udp"] != 3 {
		t.Errorf("got %+v", status)
	}

	seen := time.Now().Add(time.Minute)
	w.service.Verdicts = func() health.Verdicts {
		return health.Verdicts{
			{Kind: health.PoP, Name: "fra1"}: {Status: health.Down, Seen: seen},
			{Kind: health.PoP, Name: "iad1"}: {Status: health.Down, Seen: seen}, // not in effect yet
		}
	}
	o := &topology.Override{Kind: topology.Drain, Cluster: "eu", Reason: "works there", Expires: time.Now().Add(time.Hour)}
	if _, err := w.client(Operator).PutOverride(t.Context(), "drain-cluster-eu", o); err != nil {
		t.Fatal(err)
	}
	var eu TargetStatus
	w.eventually("the drain of a cluster", func() bool {
		if status, err = c.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		eu = status.Clusters[slices.IndexFunc(status.Clusters, func(c TargetStatus) bool { return c.Name == "eu" })]
		return !eu.Answered
	})
	if !strings.Contains(eu.Why, "works there") {
		t.Errorf("eu: got why %q, want the override's reason", eu.Why)
	}
	for _, p := range status.PoPs {
		if p.Health.Seen.Equal(seen) != (p.Name == "fra1") {
			t.Errorf("%s: got %+v, want the newest look at what is in effect", p.Name, p.Health)
		}
	}

	trace, err := c.Explain(t.Context(), ExplainRequest{Service: "intake.isochrone.test", Client: "192.0.2.7"})
	if err != nil || len(trace.Answer) != 1 || trace.Answer[0] != "nrt1" || len(trace.Candidates) != 6 {
		t.Fatalf("got %+v, %v, want nrt1 since sin1 is drained", trace, err)
	}
	for _, test := range []struct {
		request ExplainRequest
		want    error
		detail  string
	}{
		{ExplainRequest{Service: "nobody.test", Client: "192.0.2.7"}, ErrNotFound, "intake.isochrone.test"},
		{ExplainRequest{Client: "192.0.2.7"}, ErrInvalid, "say which service"},
		{ExplainRequest{Service: "Intake.isochrone.test.", Client: "x"}, ErrInvalid, "203.0.113.0/24"},
		{ExplainRequest{Service: "intake.isochrone.test", Client: "x"}, ErrInvalid, "203.0.113.0/24"},
		{ExplainRequest{Service: "intake.isochrone.test", Client: "192.0.2.7", Family: "MX"}, ErrInvalid, "HTTPS"},
	} {
		if _, err := c.Explain(t.Context(), test.request); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.detail) {
			t.Errorf("%+v: got %v, want %v with %q", test.request, err, test.want, test.detail)
		}
	}
	w.ask(Viewer, "GET", "/v1/explain?servce=x", "").problem(t, 400)
	w.ask(Viewer, "GET", "/v1/nothing", "").problem(t, 404)
	if a := w.ask(Viewer, "POST", "/v1/status", ""); a.header.Get("Allow") != "GET" {
		t.Errorf("got Allow %q", a.header.Get("Allow"))
	} else {
		a.problem(t, 405)
	}

	drawn, err := c.Coloured(t.Context(), ColouredRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cells := map[string]float64{}
	for _, row := range drawn.Rows {
		for _, run := range row.Runs {
			cells[drawn.PoPs[int(run[2])]] += run[1]
		}
	}
	if cells["sin1"] != 0 || cells["fra1"] != 0 || cells["nrt1"] < 300 || cells["gru1"] < 300 {
		t.Errorf("cells: got %v, want none of what is drained or down", cells)
	}
}

func TestBehind(t *testing.T) {
	snap := &topology.Snapshot{Revision: 9, Good: 7, Hash: "h"}
	s := &Service{Snapshot: func() *topology.Snapshot { return snap }}
	s.Alive = func(context.Context) ([]NodeStatus, error) {
		return []NodeStatus{
			{Name: "same", Good: 7, Hash: "h"}, {Name: "started later", Good: 9, Hash: "h"}, {Name: "has not the newest override", Good: 7, Hash: "g"},
			{Name: "behind", Good: 5, Hash: "g"}, {Name: "of an older version", Good: 5},
		}, nil
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, false, true, true} {
		if nodes[i].Behind != want {
			t.Errorf("%s: got behind %v", nodes[i].Name, nodes[i].Behind)
		}
	}
}

func TestSafe(t *testing.T) {
	w := begin(t, nil)
	w.service.Traffic = func() (float64, bool) { return 12, true }
	c := w.client(Viewer)
	safe, err := c.Safe(t.Context(), SafeRequest{PoP: "sin1"})
	if err != nil || !safe.Safe || !strings.Contains(strings.Join(safe.Because, "\n"), "clients in SG go to nrt1: median") {
		t.Fatalf("sin1: got %+v, %v", safe, err)
	}
	if e := safe.Effect[0]; e.Moved < 0.1 || e.Moves[0].From != "sin1" || e.Moves[0].To != "nrt1" || e.P95MS[1] < e.P95MS[0] {
		t.Errorf("effect: got %+v", e)
	}
	if safe, err := c.Safe(t.Context(), SafeRequest{Cluster: "ap"}); err != nil || !safe.Safe || !strings.Contains(strings.Join(safe.Because, "\n"), "sin1 forwards to") {
		t.Errorf("cluster ap: got %+v, %v", safe, err)
	}
	if _, err := c.Safe(t.Context(), SafeRequest{PoP: "mars1"}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "sin1") {
		t.Errorf("mars1: got %v", err)
	}
	if _, err := c.Safe(t.Context(), SafeRequest{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("nothing: got %v", err)
	}

	// With every other PoP drained, the last one is needed.
	for _, pop := range topology.ExamplePoPs[1:] {
		w.drain(pop)
	}
	last := topology.ExamplePoPs[0]
	w.eventually("the drains", func() bool {
		for i := range w.live.View().Table.PoPs() {
			ok, _ := w.live.View().State.Standing(router.Choice(i))
			if name, _ := w.live.View().Table.PoP(router.Choice(i)); ok != (name == last) {
				return false
			}
		}
		return true
	})
	safe, err = c.Safe(t.Context(), SafeRequest{PoP: last})
	because := strings.Join(safe.Because, "\n")
	if err != nil || safe.Safe || !strings.Contains(because, "no PoP left that is well") || !strings.Contains(because, "would get no answer") {
		t.Errorf("the last PoP: got %+v, %v", safe, err)
	}
}

func TestOverload(t *testing.T) {
	w := begin(t, nil)
	// fra1 has most of the clients here, and would leave them to a PoP that is small.
	top := example()
	put := ""
	for name, capacity := range map[string]int{"fra1": 1000, "sin1": 1000, "nrt1": 1000, "iad1": 100, "gru1": 100, "jnb1": 100} {
		top.PoPs[name].CapacityRPS = capacity
	}
	put = string(top.Marshal())
	dry, err := w.client(Operator).Apply(t.Context(), ApplyRequest{Document: put, DryRun: true})
	if err != nil || dry.Revision != 0 || len(dry.Changes) != 6 || len(dry.Effect) == 0 || dry.Effect[0].Moved != 0 {
		t.Fatalf("dry run: got %+v, %v", dry, err)
	}
	if _, err := w.client(Operator).Apply(t.Context(), ApplyRequest{Document: put}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the capacities", func() bool { return w.live.View().Table.Snapshot().Topology.PoPs["iad1"].CapacityRPS == 100 })
	safe, err := w.client(Viewer).Safe(t.Context(), SafeRequest{PoP: "fra1"})
	if err != nil || safe.Safe || !strings.Contains(safe.Because[0], "of its capacity") {
		t.Errorf("got %+v, %v, want that some PoP would be overloaded", safe, err)
	}
}
