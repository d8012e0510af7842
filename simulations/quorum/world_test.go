package quorum

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/simulations/virtual"
	"github.com/isochrone/isochrone/topology"
)

var seeds = flag.Int("quorum-seeds", 2, "how many worlds are simulated of each kind")

var kills = flag.Int("quorum-kills", 20, "how many PoPs are killed in a world")

// sites are those of the topology of forty PoPs: the first pops of them, and four DNS nodes.
func sites(t testing.TB, pops int) []Site {
	t.Helper()
	text, err := os.ReadFile("../../docs/forty-pops.yaml")
	if err != nil {
		t.Fatal(err)
	}
	top, err := topology.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var all []Site
	for name, p := range top.PoPs {
		all = append(all, Site{"pop:" + name, geo.ContinentOf(p.Location.Country), p.Location})
	}
	slices.SortFunc(all, func(a, b Site) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	random := rand.New(rand.NewPCG(uint64(pops), 3))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var chosen []Site
	for i := range pops {
		s := all[i%len(all)]
		if i >= len(all) {
			s.Name = fmt.Sprintf("%s-%d", s.Name, i/len(all))
		}
		chosen = append(chosen, s)
	}
	for i, s := range chosen[:4] {
		s.Name = fmt.Sprintf("dns:%d", i)
		chosen = append(chosen, s)
	}
	return chosen
}

// simulate runs a world, and has play play with it when it has settled.
func simulate(t testing.TB, c Config, play func(w *World)) {
	t.Helper()
	err := virtual.Run(func() error {
		ctx, cancel := context.WithCancel(context.Background())
		w, wait := Start(ctx, c)
		time.Sleep(time.Minute)
		play(w)
		cancel()
		wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// whenDown returns how long after a time the last DNS node came to hold a PoP to be down; false when some did not.
func whenDown(w *World, pop string, after time.Time) (time.Duration, bool) {
	var worst time.Duration
	for i := range 4 {
		found := false
		for _, c := range w.History(fmt.Sprintf("dns:%d", i)) {
			if c.Target.Name == pop && c.Status == health.Down && !c.At.Before(after) {
				worst, found = max(worst, c.At.Sub(after)), true
				break
			}
		}
		if !found {
			return 0, false
		}
	}
	return worst, true
}

// TestTimeToVerdict kills PoPs one after the other, so that they are silent, or say that nobody listens.
func TestTimeToVerdict(t *testing.T) {
	for _, how := range []State{Dead, Killed} {
		var took []time.Duration
		for seed := range uint64(*seeds) {
			simulate(t, Config{Sites: sites(t, 30), Seed: seed}, func(w *World) {
				random := rand.New(rand.NewPCG(seed, 9))
				for range *kills {
					pop := w.config.Sites[random.IntN(30)].Name[len("pop:"):]
					time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
					at := time.Now()
					w.Set(pop, how)
					time.Sleep(20 * time.Second)
					if d, ok := whenDown(w, pop, at); ok {
						took = append(took, d)
					} else {
						t.Errorf("seed %d: %s was never held to be down: %+v", seed, pop, w.Verdicts("dns:0")[health.Target{Kind: health.PoP, Name: pop}])
					}
					w.Set(pop, Well)
					time.Sleep(40 * time.Second)
				}
			})
		}
		slices.Sort(took)
		if len(took) == 0 {
			t.Fatal("nothing was measured")
		}
		at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(10 * time.Millisecond) }
		t.Logf("%v: %d failures, verdict after: median %v, p90 %v, p99 %v, longest %v", how, len(took), at(0.5), at(0.9), at(0.99), took[len(took)-1])
		if at(0.99) > 3*time.Second {
			t.Errorf("p99 %v, want 3 s", at(0.99))
		}
	}
}
