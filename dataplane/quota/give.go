package quota

import (
	"context"
	"time"
)

// givePatience is how long a home waits for its own store; the rest of homePatience is for the way.
const givePatience = 600 * time.Millisecond

// give takes from this PoP's account for another one, which holds this PoP to be the key's home. It does not wait.
func (l *Ledger) give(from string, ask Ask, now time.Time) (Given, outcome) {
	p := l.position.Load()
	if p == nil || !now.Before(p.until) {
		if p = l.locate(now); p == nil {
			return Given{Unsure: true}, away
		}
	}
	a := l.account(ask.Key)
	a.askedBy(from, p.number, now)
	if p.number < ask.Window {
		l.poke() // it is told that there is a newer one
		return Given{Unsure: true}, unknown
	}
	s := a.sliceAt(p, ask.Limit, now)
	g := Given{Window: s.window, Limit: ask.Limit}
	left := s.left.Load()
	for ok := true; ok && g.Given < ask.Want; {
		if left, ok = s.take(); ok {
			g.Given++
		}
	}
	spent := s.spent.Load() >= ask.Limit || p.rest
	if !spent && (left <= s.low.Load() || g.Given < ask.Want) {
		l.ask(a, now)
	}
	g.Left, g.PoPs, g.Spent = left+max(0, s.remaining.Load()), a.users(s.window), spent && left == 0
	switch {
	case g.Given > 0:
		return g, admitted
	case g.Spent:
		return g, denied
	case !p.news:
		return Given{Unsure: true}, away
	}
	return Given{Unsure: true}, unknown
}

// askedBy takes that another PoP has asked for the key.
func (a *account) askedBy(pop string, window int64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked = now; a.askers == nil {
		a.askers = map[string]int64{}
	}
	if _, known := a.askers[pop]; known || len(a.askers) < maxPoPs {
		a.askers[pop] = window
	}
}

// users returns how many PoPs use the key: those that have asked this one, and those that take grants.
func (a *account) users(window int64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := max(0, a.pops-1) // but for this one, which may take grants for others alone
	if a.local.Load() >= window-1 {
		n++
	}
	for pop, at := range a.askers {
		if at < window-1 {
			delete(a.askers, pop)
			continue
		}
		n++
	}
	return n
}

// Give gives another PoP some of what this one is granted. The keys must be known ones, of the quotas that the asks tell. It waits for the
// store, for 0.6 s at most.
func (l *Ledger) Give(ctx context.Context, from string, asks []Ask) []Given {
	given, open := make([]Given, len(asks)), make([]int, len(asks))
	for i, ask := range asks {
		open[i] = i
		l.account(ask.Key).waiting.Add(ask.Want)
	}
	decided := func(i int) { l.account(asks[i].Key).waiting.Add(-asks[i].Want) }
	defer func() {
		for _, i := range open {
			decided(i)
		}
	}()
	timeout := time.NewTimer(givePatience)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		news := l.news
		l.mu.Unlock()
		var waiting []int
		for _, i := range open {
			var result outcome
			if given[i], result = l.give(from, asks[i], time.Now()); result == unknown {
				waiting = append(waiting, i)
			} else {
				decided(i)
			}
		}
		if open = waiting; len(open) == 0 {
			return given
		}
		select {
		case <-news:
		case <-timeout.C:
			return given
		case <-ctx.Done():
			return given
		}
	}
}
