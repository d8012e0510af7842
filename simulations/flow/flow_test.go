package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

// small is a scenario with so many clients and PoPs.
func small(clients, pops int, d time.Duration) *scenario.Scenario {
	return &scenario.Scenario{Name: "small", Duration: scenario.Duration(d), World: scenario.World{
		PoPs: &scenario.PoPs{Count: pops, Capacity: 2}, Clusters: &scenario.Clusters{At: []string{"IAD", "FRA", "SIN"}},
		Clients: scenario.Clients{Count: clients, Rate: 0.02, Fresh: 0.1, Diurnal: 0.4, Resolvers: scenario.Resolvers{Own: 0.3, ECS: 0.6, Farm: 4}},
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

var policies = []scenario.PolicyName{scenario.Ours, scenario.Nearest, scenario.Random, scenario.Country, scenario.Distance, scenario.Anycast, scenario.FastRoute,
	scenario.Oracle}

// eventful is a scenario in which everything happens.
func eventful(clients, pops int) *scenario.Scenario {
	s := small(clients, pops, 50*time.Minute)
	at := func(minutes float64) scenario.Duration { return scenario.Duration(minutes * float64(time.Minute)) }
	s.Timeline = []scenario.Event{
		{At: at(2), For: at(3), Lose: []string{"largest"}},
		{At: at(8), For: at(2), BrownOut: &scenario.BrownOut{PoP: "fra1", Delay: scenario.Duration(3 * time.Second), Capacity: 0.5}},
		{At: at(12), For: at(2), Drain: []string{"fra1"}},
		{At: at(16), For: at(5), Flap: &scenario.Flap{PoP: "iad1", Up: at(0.2), Down: at(0.2)}},
		{At: at(17), For: at(5), Crowd: &scenario.Crowd{Near: "FRA", Within: scenario.Duration(20 * time.Millisecond), Factor: 4, Ramp: at(1)}},
		{At: at(26), For: at(2), Partition: []string{"AS"}},
		{At: at(30), For: at(2), Flip: &scenario.Flip{Part: 0.1}},
		{At: at(34), For: at(2), EtcdAway: true},
		{At: at(35), Edit: "pops: {fra1: {state: draining}}"},
		{At: at(38), Edit: "pops: {fra1: {state: draining}}"},
		{At: at(40), Upgrade: &scenario.Upgrade{AtOnce: 2, Pause: at(0.2), Away: at(0.2)}},
	}
	if raced {
		s.Duration, s.Timeline = at(4), s.Timeline[:1]
	}
	return s
}

// TestDeterminism runs one scenario with one seed again and again, on one and on two processors.
func TestDeterminism(t *testing.T) {
	times := 2
	if *big {
		times = 20
	}
	s := eventful(2500, 8) // three shards
	for _, policy := range []scenario.PolicyName{scenario.Ours, scenario.FastRoute} {
		var first []byte
		for i := range times {
			before := runtime.GOMAXPROCS(1 + i%2)
			r := run(t, s, policy, 5)
			runtime.GOMAXPROCS(before)
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = text
			}
			if !bytes.Equal(text, first) {
				t.Fatalf("%s: run %d differs from the first", policy, i)
			}
		}
	}
	a, _ := json.Marshal(run(t, small(3000, 5, 10*time.Minute), scenario.Ours, 5).Figures)
	b, _ := json.Marshal(run(t, small(3000, 5, 10*time.Minute), scenario.Ours, 6).Figures)
	if bytes.Equal(a, b) {
		t.Error("two seeds give the same figures")
	}
}

// TestBooks holds for all policies what must be so: posts are accepted, refused or lost; nobody is nearer than the nearest; the oracle's round trips are the shortest of those
// who overload nobody.
func TestBooks(t *testing.T) {
	s := eventful(1500, 8)
	means := map[scenario.PolicyName]float64{}
	for _, policy := range policies {
		if raced && policy == scenario.Oracle { // whose auction takes minutes then
			continue
		}
		of := s
		if !*big && policy != scenario.Ours && policy != scenario.FastRoute {
			of = small(1500, 8, time.Duration(s.Duration))
			of.Timeline = s.Timeline[:1]
		}
		r := run(t, of, policy, 2)
		f := func(name string) float64 { return r.Figures[name].Value }
		if sum := f("accepted") + f("refused") + f("lost"); sum < f("posts")*0.999999 || sum > f("posts")*1.000001 || f("posts") < 80_000 && !raced {
			t.Errorf("%s: of %v posts %v are accounted for", policy, f("posts"), sum)
		}
		if f("lost") <= 0 && policy != scenario.Oracle || f("questions") <= 0 || f("rtt.mean") < f("off.mean") || f("cache.hits") < 0 || f("cache.hits") > 1 {
			t.Errorf("%s: %v", policy, r.Figures)
		}
		for name, d := range r.Distributions {
			sum := 0.0
			for _, w := range d.Weights {
				sum += w
			}
			if sum < 0.999 || sum > 1.001 {
				t.Errorf("%s: the weights of %s are %v in all", policy, name, sum)
			}
		}
		if raced {
			continue
		}
		calm := run(t, small(4000, 8, 10*time.Minute), policy, 2)
		means[policy] = calm.Figures["rtt.mean"].Value
		if lost := calm.Figures["lost"].Value; lost != 0 && policy != scenario.Random { // which fills small PoPs until they fall over
			t.Errorf("%s loses %v posts in calm", policy, lost)
		}
	}
	t.Log(means)
	for policy, mean := range means {
		if means[scenario.Oracle] > mean*1.001 && policy != scenario.Nearest {
			t.Errorf("%s has %v ms on the mean, the oracle %v", policy, mean, means[scenario.Oracle])
		}
	}
	if !raced && !(means[scenario.Ours] < means[scenario.Distance] && means[scenario.Distance] < means[scenario.Random] && means[scenario.Ours] < means[scenario.Anycast]) {
		t.Errorf("means are %v", means)
	}
}

// TestAllocations: a step allocates nothing for clients: as much for many as for few.
func TestAllocations(t *testing.T) {
	of := func(clients int) float64 {
		s := small(clients, 8, time.Hour)
		w, err := world.Build(s.World, 1)
		if err != nil {
			t.Fatal(err)
		}
		e, err := newEngine(s, w, scenario.Nearest, 1)
		if err != nil {
			t.Fatal(err)
		}
		e.down[0] = true // so that clients move in all steps
		e.decide()
		return testing.AllocsPerRun(5, func() { e.advance(time.Second) })
	}
	few, many := of(1000), of(30_000)
	t.Logf("%v allocations a step for 1,000 clients, %v for 30,000", few, many)
	if many > few+20 { // goroutines, of which there are none for one shard
		t.Errorf("a step allocates %v times for 30,000 clients, %v for 1,000", many, few)
	}
}

// TestOnce has each client ask and post once.
func TestOnce(t *testing.T) {
	r := run(t, small(5000, 8, 0), scenario.Nearest, 1)
	if got := r.Figures["posts"].Value; got != 5000 {
		t.Errorf("%v posts, want 5000", got)
	}
	if got := r.Figures["questions"].Value; got < 1500 || got > 5000 {
		t.Errorf("%v questions", got)
	}
}
