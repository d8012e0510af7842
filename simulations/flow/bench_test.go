package flow

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

var big = flag.Bool("big", false, "benchmarks run with up to ten million clients")

var day = flag.Duration("day", 24*time.Hour, "how long the days of benchmarks are")

// BenchmarkDay lets a day of steps of a minute pass, with growth in clients and in PoPs. It needs -big for more than a million clients.
func BenchmarkDay(b *testing.B) {
	for _, size := range []struct{ clients, pops int }{{10_000, 40}, {100_000, 40}, {1_000_000, 40}, {1_000_000, 100}, {1_000_000, 300}, {10_000_000, 40}, {10_000_000, 300}} {
		if size.clients > 1_000_000 && !*big {
			continue
		}
		s := small(size.clients, size.pops, *day)
		s.World.Clients.Resolvers = scenario.Resolvers{Own: 0.3, ECS: 0.7, Farm: 4} // with few large resolvers single ones are more than a small PoP can do
		s.Timeline = []scenario.Event{{At: scenario.Duration(12 * time.Hour), For: scenario.Duration(time.Hour), Lose: []string{"fra1"}}}
		b.Run(fmt.Sprintf("%dx%d", size.clients, size.pops), func(b *testing.B) {
			for range b.N {
				began, used := time.Now(), processorTime(b)
				w, err := world.Build(s.World, 1)
				if err != nil {
					b.Fatal(err)
				}
				built := time.Since(began)
				r, err := Run(context.Background(), s, w, scenario.Ours, 1, nil)
				if err != nil {
					b.Fatal(err)
				}
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				b.ReportMetric((processorTime(b) - used).Seconds(), "s-cpu")
				b.ReportMetric(built.Seconds(), "s-world")
				b.ReportMetric(float64(m.Sys)/(1<<20), "MiB")
				b.ReportMetric(float64(len(w.Networks)), "networks")
				b.ReportMetric(r.Figures["rtt.mean"].Value, "ms-rtt")
			}
		})
	}
}

// processorTime is what this process has used of processors.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
