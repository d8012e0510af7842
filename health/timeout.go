package health

import (
	"slices"
	"time"
)

// How long probes may take. Quantiles are those of this vantage's recent successful probes of the target.
const (
	leastTimeout  = 300 * time.Millisecond
	mostTimeout   = 2 * time.Second
	patience      = time.Second            // a timeout beyond it needs a target that is far: one lost packet in a hundred probes moves p99, not the median
	firstTimeout  = time.Second            // while nothing is known
	lateBy        = 350 * time.Millisecond // beyond p90: longer than the first retransmission of a connection takes (quic-go: 300 ms)
	firstLate     = 500 * time.Millisecond // while nothing is known
	enoughSamples = 5
)

// Timeout returns how long a probe of the target may take: three times p99, from 300 ms to 2 s; but where that is more than a second, no
// more than three times the median, which lost packets do not move.
func (w *Watcher) Timeout(t Target) time.Duration {
	d := w.samples(t)
	if d == nil {
		return firstTimeout
	}
	most := min(max(patience, 3*d.quantile(0.5)), mostTimeout)
	return min(max(leastTimeout, 3*d.quantile(0.99)), most)
}

// LateAfter returns how long a probe of the target takes before it is late: 350 ms after p90, and less than the
// timeout.
func (w *Watcher) LateAfter(t Target) time.Duration {
	d := w.samples(t)
	if d == nil {
		return firstLate
	}
	return min(d.quantile(0.9)+lateBy, w.Timeout(t)*4/5)
}

// samples returns the durations of probes of the target, or of all targets when it has few, or nil.
func (w *Watcher) samples(t Target) *durations {
	if x := w.targets[t]; x != nil && len(x.took.last) >= enoughSamples {
		return &x.took
	}
	if len(w.all.last) >= enoughSamples {
		return &w.all
	}
	return nil
}

// durations are the last few of a series.
type durations struct {
	last   []time.Duration
	bound  int             // how many
	next   int             // the oldest, once there are so many
	sorted []time.Duration // last, or nothing when it must be sorted anew
}

func (d *durations) add(one time.Duration) {
	d.sorted = d.sorted[:0]
	if len(d.last) < d.bound {
		d.last = append(d.last, one)
		return
	}
	d.last[d.next] = one
	d.next = (d.next + 1) % d.bound
}

// quantile returns the value that a share q of them does not exceed; 0 when there is none.
func (d *durations) quantile(q float64) time.Duration {
	if len(d.last) == 0 {
		return 0
	}
	if len(d.sorted) == 0 {
		d.sorted = append(d.sorted, d.last...)
		slices.Sort(d.sorted)
	}
	return d.sorted[int(q*float64(len(d.sorted)-1)+0.5)]
}
