package packet

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// Site is a place of the simulated world, such as sin.
type Site string

// Link is the pair of sites that a round-trip time belongs to, in either order.
type Link [2]Site

// String returns the sites with a comma between them.
func (l Link) String() string { return string(l[0]) + "," + string(l[1]) }

// RTTs are the round-trip times of links. A site is no time away from itself.
type RTTs map[Link]time.Duration

// Between returns the round-trip time between two sites, and whether there is a link.
func (r RTTs) Between(a, b Site) (time.Duration, bool) {
	if a == b {
		return 0, true
	}
	if rtt, ok := r[Link{a, b}]; ok {
		return rtt, true
	}
	rtt, ok := r[Link{b, a}]
	return rtt, ok
}

// Links returns the links in the order of their names.
func (r RTTs) Links() iter.Seq[Link] {
	return slices.Values(slices.SortedFunc(maps.Keys(r), func(a, b Link) int { return cmp.Compare(a.String(), b.String()) }))
}

// Way is a Config's Way: half of the round trip each way, without chance.
func (r RTTs) Way(from, to *Host) (Way, error) {
	rtt, ok := r.Between(from.Site, to.Site)
	if !ok {
		return Way{}, fmt.Errorf("the simulated network has no link %v", Link{from.Site, to.Site})
	}
	return Way{Delay: rtt / 2}, nil
}

// Way is what happens to packets from one host to another. The zero Way carries all of them at once.
type Way struct {
	Delay   time.Duration                     // the median
	Jitter  time.Duration                     // mean of the part of the delay that varies, from burst to burst; see late
	Vary    func(sample uint64) time.Duration // what is added to the delay of a burst, from any number of its own; nil for nothing
	Loss    float64                           // of bursts, 0..1
	Reorder float64                           // likewise, that come after their successor
}

// Line is what joins a host to the network. The zero Line has no bound.
type Line struct {
	Up, Down float64       // bits a second; 0 is without bound
	Queue    time.Duration // how long a packet waits at most before it is dropped; default 100 ms
}

const defaultQueue = 100 * time.Millisecond

// gammaMedian is the median of the sum of two exponential variables of mean 1, halved: so much is taken off each way, that the median of round trips
// stays what it is without jitter.
const gammaMedian = 0.8392

// late returns how late a burst is. The varying part is exponential, as the length of a queue is: round trips vary by the sum of two of these, whose
// 95 % point is 3.07 times the mean above the median.
func (w *Way) late(d draw) time.Duration {
	delay := w.Delay
	if w.Jitter > 0 {
		delay += time.Duration((d.with(uint64(forJitter)).exponential() - gammaMedian) * float64(w.Jitter))
	}
	if w.Vary != nil {
		delay += w.Vary(mix(uint64(d.with(uint64(forJitter)))))
	}
	return max(delay, 0)
}

// JitterOf is the mean of the varying part of each way by a path's round-trip time, after docs/rtt-model.md: P95 less P50 over a month is 3 ms up to
// 120 ms, 4.5 up to 200, and 7 above.
func JitterOf(rtt time.Duration) time.Duration {
	spread := 3 * time.Millisecond
	switch {
	case rtt > 200*time.Millisecond:
		spread = 7 * time.Millisecond
	case rtt > 120*time.Millisecond:
		spread = 4500 * time.Microsecond
	}
	return min(time.Duration(float64(spread)/3.066), rtt/4)
}

// queue is one direction of a line.
type queue struct {
	rate float64 // bits a second; 0 is without bound
	wait time.Duration
	busy time.Time // until when
}

// leave returns when a packet of a size has been sent that comes now, and whether there is room for it.
func (q *queue) leave(now time.Time, octets int) (time.Time, bool) {
	if q.rate == 0 {
		return now, true
	}
	begin := now
	if q.busy.After(begin) {
		begin = q.busy
	}
	if begin.Sub(now) > q.wait {
		return now, false
	}
	q.busy = begin.Add(time.Duration(float64(octets) * 8 / q.rate * float64(time.Second)))
	return q.busy, true
}
