package simulations

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isochrone/isochrone/simulations/packet"
)

// Spread is what many clients of a city waited for, over links with chance.
type Spread struct {
	City      string  `json:"city"`
	Way       string  `json:"way"`
	Transport string  `json:"transport"`
	Clients   int     `json:"clients"`
	Loss      float64 `json:"loss"` // of packets, each way
	Fresh     Centile `json:"fresh_ms"`
	Warm      Centile `json:"warm_ms"`
}

// Centile is the median and the 99 % point of times to 202, and the median as it follows from the links, in ms.
type Centile struct {
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Analytic float64 `json:"analytic"`
}

// spreadLoss and spreadClients are those of the links and cities. Jitter is as docs/rtt-model.md has it, by each link's round trip.
const (
	spreadLoss    = 0.005
	spreadClients = 200
)

// spread posts by many clients from each city, each way, over links with jitter and loss.
func spread(rtts RTTs, clients int, measure measureManyFunc) ([]Spread, error) {
	way := func(from, to *packet.Host) (packet.Way, error) {
		w, err := rtts.Way(from, to)
		if w.Delay > 0 {
			w.Loss, w.Jitter = spreadLoss, packet.JitterOf(2*w.Delay)
		}
		return w, err
	}
	all := make([]Spread, 0, 8)
	var running errgroup.Group
	running.SetLimit(2)
	for _, c := range cities {
		for _, over := range []Transport{QUIC, TCP} {
			for _, to := range c.ways() {
				p, _ := rtts.Between(to.path.Client, to.path.PoP)
				handshake := p
				if over == TCP {
					handshake = 2 * p
				}
				all = append(all, Spread{
					City: c.name, Way: to.name, Transport: string(over), Clients: clients, Loss: spreadLoss,
					Fresh: Centile{Analytic: inMS(handshake + p)}, Warm: Centile{Analytic: inMS(p)},
				})
				row, network := &all[len(all)-1], packet.Config{Way: way, Seed: uint64(len(all))}
				running.Go(func() error {
					fresh, warm, err := measure(network, to.path, over, clients)
					if err != nil {
						return fmt.Errorf("%s, %s over %s, with loss: %w", c.name, to.name, over, err)
					}
					row.Fresh.of(fresh)
					row.Warm.of(warm)
					return nil
				})
			}
		}
	}
	err := running.Wait()
	slices.SortStableFunc(all, func(a, b Spread) int { return cmp.Or(cmp.Compare(b.City, a.City), cmp.Compare(a.Way, b.Way)*-1) })
	return all, err
}

// measureManyFunc is MeasureMany, or that with a fault in a test.
type measureManyFunc func(packet.Config, Path, Transport, int) (fresh, warm []time.Duration, err error)

// of takes what was measured.
func (c *Centile) of(times []time.Duration) {
	slices.Sort(times)
	at := func(part float64) float64 { return inMS(times[min(len(times)-1, int(part*float64(len(times))))]) }
	c.P50, c.P99 = at(0.5), at(0.99)
}

// checkSpread notes medians that are not what the links say, by more than jitter explains, which is less than a round trip of any link.
func (r *Report) checkSpread() {
	for _, s := range r.Spread {
		for _, c := range []struct {
			name string
			Centile
		}{{"fresh", s.Fresh}, {"warm", s.Warm}} {
			if off := math.Abs(c.P50 - c.Analytic); off > max(3*tolerance, c.Analytic/100) {
				r.Failures = append(r.Failures, fmt.Sprintf("with loss: %s, %s, %s %s: median %.1f ms, analytic %.1f ms", s.City, s.Way, c.name, s.Transport, c.P50, c.Analytic))
			}
		}
	}
}
