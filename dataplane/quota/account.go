package quota

import (
	"sync"
	"sync/atomic"
	"time"
)

// How much an account holds, so that it seldom waits, does not take what others could use, and does not ask too often.
const (
	holdFor  = 5 * time.Second  // of its demand, and one more
	endGame  = 10 * time.Second // before the end of a window: from then on nothing is taken for little demand
	holdPart = 128              // of what is left, for all PoPs together, whether there is demand or not
	// Slices ahead, for all PoPs together: a part of the quota for the next window, and half as much for the one after it.
	aheadPart = 64
)

// account is what a PoP holds of a key's quota.
type account struct {
	key     string
	current atomic.Pointer[slice]
	asking  atomic.Bool  // it is in the queue, or the store is being asked
	limit   atomic.Int64 // the quota, as a request knew it last
	waiting atomic.Int64 // requests
	missed  atomic.Int64 // requests that were denied, though there may have been some left
	local   atomic.Int64 // the window of the newest request to this PoP itself

	mu       sync.Mutex
	standing           // with the home of the key
	ahead    []*slice  // for the next windows
	measured time.Time // when the demand was measured
	used     int64     // of the current slice, and missed, then
	rate     float64   // requests a second
	pops     int       // that share the quota, as far as it is known
}

// slice is what an account holds of a window. It is used up by many at the same time.
type slice struct {
	window    int64
	left      atomic.Int64
	granted   atomic.Int64 // in all
	low       atomic.Int64 // more is asked for when no more than this is left
	remaining atomic.Int64 // what the store had left; -1 when it was not asked
	share     atomic.Int64 // of this PoP in that, if all PoPs have the same
	scraps    atomic.Int64 // if it has no more than this, that is not worth waiting for
	spent     atomic.Int64 // the quota of which the store had nothing left; -1 when it has
}

func newSlice(window int64) *slice {
	s := &slice{window: window}
	s.remaining.Store(-1)
	s.spent.Store(-1)
	return s
}

// take takes one, and returns how many are left.
func (s *slice) take() (left int64, ok bool) {
	for left := s.left.Load(); left > 0; left = s.left.Load() {
		if s.left.CompareAndSwap(left, left-1) {
			return left - 1, true
		}
	}
	return 0, false
}

// add adds what was granted.
func (s *slice) add(g Granted, limit int64) {
	if !g.Busy {
		s.remaining.Store(g.Remaining)
		s.share.Store(g.Remaining / int64(max(1, g.PoPs)))
		s.scraps.Store(scraps(limit, g.PoPs))
	}
	s.granted.Add(g.Granted)
	s.left.Add(g.Granted)
	if g.Remaining == 0 && !g.Busy && !g.Closed { // of a key that there is not, there may be some soon
		s.spent.Store(limit)
	}
}

// scraps returns how little of a quota is not worth waiting for: what is left is granted one by one then, to many. A PoP that is alone with
// a key, and one of a small quota, of which each request counts, waits for the last.
func scraps(limit int64, pops int) int64 {
	if pops <= 1 || limit < 50*int64(pops) {
		return 0
	}
	return min(limit/50, int64(4*pops))
}

// of returns the slice of a window, and begins with it if the account is in an earlier one.
func (a *account) of(window int64, now time.Time) *slice {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.current.Load()
	if s != nil && s.window >= window {
		return s
	}
	s = newSlice(window)
	var later []*slice
	for _, taken := range a.ahead {
		switch {
		case taken.window == window:
			s = taken
		case taken.window > window:
			later = append(later, taken)
		}
	}
	a.ahead, a.measured, a.used = later, now, a.missed.Load()
	a.current.Store(s)
	return s
}

// sliceAt returns the slice of a position, for who knows of a quota.
func (a *account) sliceAt(p *position, limit int64, now time.Time) *slice {
	s := a.current.Load()
	if s == nil || s.window < p.number {
		s = a.of(p.number, now)
	}
	if a.limit.Load() != limit && a.limit.Swap(limit) < limit {
		s.remaining.Store(-1) // there is more than the store has told
	}
	return s
}

// asks returns what to ask the store for now, or nothing.
func (a *account) asks(p *position, now time.Time) []Ask {
	s, limit := a.of(p.number, now), a.limit.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting := a.waiting.Load()
	used := s.granted.Load() - s.left.Load()
	a.measure(used+waiting+a.missed.Load(), now)
	hold := 1 + int64(a.rate*holdFor.Seconds())
	switch remaining := s.remaining.Load(); {
	case a.frugal:
		hold = 0
	case remaining > 0 && a.pops > 0:
		hold = max(hold, remaining/int64(holdPart*a.pops))
	case remaining < 0: // the first request of a window: more may follow before the store can be asked again
		hold = max(hold, min(limit/holdPart, 8))
	}
	if left := p.ends.Sub(now).Seconds(); left < endGame.Seconds() && a.rate*left < 0.5 {
		hold = 0 // it would hardly be used
	}
	s.low.Store(max(min(hold/2, 2), hold/4))
	var asks []Ask
	if want := hold + waiting - s.left.Load(); want > 0 && s.spent.Load() < limit {
		asks = append(asks, Ask{Key: a.key, Window: s.window, Limit: limit, Want: min(want, maxWant)})
	}
	if used > 0 && p.ends.Sub(now) < Window/2 && a.pops > 0 && !a.frugal {
		for n := int64(1); n <= ahead; n++ {
			most := max(5-2*n, limit/(aheadPart*n*int64(a.pops)))
			want := min(most, max(1, used/4))
			if taken := a.slice(s.window + n); taken != nil {
				want -= taken.granted.Load()
			}
			if want > 0 {
				asks = append(asks, Ask{Key: a.key, Window: s.window + n, Limit: limit, Want: want})
			}
		}
	}
	return asks
}

// measure measures the demand.
func (a *account) measure(used int64, now time.Time) {
	passed, more := now.Sub(a.measured).Seconds(), float64(max(0, used-a.used))
	a.measured, a.used = now, used
	switch rate := more / max(passed, 1); {
	case rate > a.rate && more > 1:
		a.rate = rate // it may be a burst; it falls as fast
	default:
		a.rate += (rate - a.rate) * min(1, passed/2)
	}
}

// slice returns the slice of a later window, or nil.
func (a *account) slice(window int64) *slice {
	for _, s := range a.ahead {
		if s.window == window {
			return s
		}
	}
	return nil
}

// grant takes what was granted. A grant of a window that is over for this PoP is lost.
func (a *account) grant(ask Ask, g Granted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !g.Closed && !g.Busy {
		a.pops = g.PoPs
		a.own = a.own && ask.Limit >= PerPoP*int64(g.PoPs)
	}
	s := a.current.Load()
	switch {
	case s != nil && s.window == ask.Window:
		s.add(g, ask.Limit)
	case s != nil && s.window < ask.Window && g.Granted > 0:
		taken := a.slice(ask.Window)
		if taken == nil {
			taken = newSlice(ask.Window)
			a.ahead = append(a.ahead, taken)
		}
		taken.add(g, ask.Limit)
		taken.low.Store(taken.granted.Load() / 2)
	}
}
