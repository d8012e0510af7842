package forward

import (
	"math/rand/v2"
	"time"
)

// Figures of retries. What an outage can send again is a tenth of what is new, ten a second, and a hundred at once.
const (
	budgetShare   = 0.1
	budgetRate    = 10.0 // a second
	budgetBurst   = 100.0
	firstDelay    = 100 * time.Millisecond
	longestDelay  = 5 * time.Second
	budgetPause   = 200 * time.Millisecond // after which what found no budget asks again, and up to that again
	maxPostponed  = 4096                   // envelopes in memory that wait for another attempt; more go back to the spool
	postponedSize = 64 << 20               // octets of their bodies
)

// budget is a token bucket for sending again what was sent before, over all clusters. A retry that a cluster acknowledges gives its
// token back: what was left from an outage is bounded only while it fails.
type budget struct {
	tokens float64
	at     time.Time
}

func (b *budget) take(now time.Time) bool {
	if b.at.IsZero() {
		b.tokens, b.at = budgetBurst, now
	}
	b.put(max(0, now.Sub(b.at).Seconds()) * budgetRate)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *budget) put(tokens float64) { b.tokens = min(budgetBurst, b.tokens+tokens) }

// delay is the time before another round, with full jitter: up to a bound that doubles.
func delay(tries int) time.Duration {
	return rand.N(min(longestDelay, firstDelay<<min(tries, 10))) + time.Millisecond
}

// waiting is a heap of jobs, the one that is due first on top.
type waiting []postponed

type postponed struct {
	*job
	until time.Time
}

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].until.Before(w[j].until) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)        { *w = append(*w, x.(postponed)) }
func (w *waiting) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1] = postponed{}
	*w = old[:len(old)-1]
	return last
}
