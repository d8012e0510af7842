package flow

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

// small is a scenario with so many clients and PoPs.
func small(clients, pops int, d time.Duration) *scenario.Scenario {
	return &scenario.Scenario{Name: "small", Duration: scenario.Duration(d), World: scenario.World{
		PoPs: &scenario.PoPs{Count: pops, Capacity: 2}, Clusters: &scenario.Clusters{At: []string{"IAD", "FRA", "SIN"}},
		Clients: scenario.Clients{Count: clients, Rate: 0.02, Fresh: 0.1, Diurnal: 0.4, Resolvers: scenario.Resolvers{Own: 0.1, ECS: 0.3, Farm: 4}},
		Network: scenario.Network{Catchment: scenario.Catchment{Far: 0.2}},
	}}
}

func run(tb testing.TB, s *scenario.Scenario, policy scenario.PolicyName, seed uint64) *scenario.Run {
	tb.Helper()
	w, err := world.Build(s.World, seed)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := Run(context.Background(), s, w, policy, seed, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestTry(t *testing.T) {
	s := small(20_000, 30, 3*time.Hour)
	s.Timeline = []scenario.Event{{At: scenario.Duration(time.Hour), For: scenario.Duration(20 * time.Minute), Lose: []string{"largest"}}}
	s.World.Clients.Resolvers = scenario.Resolvers{Own: 0.2, ECS: 0.3, Farm: 4}
	for _, p := range []scenario.PolicyName{scenario.Ours} {
		b := time.Now()
		r := run(t, s, p, 1)
		text, _ := json.Marshal(r.Figures)
		t.Log(p, time.Since(b), string(text))
		for _, n := range r.Notes {
			t.Log("   ", n)
		}
	}
}
