package quota

import (
	"context"
	"errors"
	"sync"
	"time"
)

// PerPoP is the quota that each active PoP needs for taking grants of its own. Of less, what PoPs hold and do not use is too much of it.
const PerPoP = 50

const (
	homePatience = time.Second      // of a call to a home; then the store is asked, which the request has time for
	passFor      = 2 * time.Second  // how long a home is not asked for a key that it did not know, or could not tell of
	avoidFor     = 5 * time.Second  // how long a home that did not answer is not asked at all; it doubles each time
	avoidMost    = 30 * time.Second // up to this
)

// Homes are the PoPs that count for keys of small quotas, one for each key, and how they are asked. That two PoPs think of different homes
// costs utilisation and nothing else: a home is merely a PoP that takes grants, as all can.
type Homes interface {
	// Of returns the home of a key of a quota, which may be this PoP itself, or nothing when the quota is large or nobody can be asked.
	Of(key string, limit int64) string
	// Ask has the home give of what it was granted, and returns as many answers as there are asks, at most MaxAsks. After an error it is
	// not known what it has given: that is lost.
	Ask(ctx context.Context, home string, asks []Ask) ([]Given, error)
}

// Given answers an Ask that a home was asked.
type Given struct {
	Window int64 // of what is given: the one that was asked for, or a later one
	Given  int64
	Limit  int64 // the quota that the home knows, which may be one of before
	Left   int64 // what the home has, and what nobody has taken
	PoPs   int   // that have asked for the key in this window and the one before, the home too if it has
	Spent  bool  // there is no more in this window
	Unsure bool  // the home does not know the key, or whether there is any left
}

// spent reports whether there is no more of the quota that was asked for: a home that knows of a lower one cannot tell.
func (g Given) spent(ask Ask) bool { return g.Spent && g.Limit >= ask.Limit }

// HomeOf returns one of the PoPs for a key: the same for all who have the same PoPs in mind, and for most keys also when one PoP comes or
// goes (rendezvous hashing, Thaler and Ravishankar 1998). Without PoPs it is nothing.
func HomeOf(key string, pops []string) (home string) {
	best := uint64(0)
	for _, pop := range pops {
		if w := weight(key, pop); home == "" || w > best || w == best && pop < home {
			home, best = pop, w
		}
	}
	return home
}

// weight is FNV-1a over both names, mixed as MurmurHash3 does at its end, which makes all bits depend on all others.
func weight(key, pop string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, text := range [2]string{key, pop} {
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * prime
		}
		h = (h ^ 0xff) * prime // no octet of UTF-8: ends the name
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// standing is how an account stands with the home of its key. It belongs to the account's mutex.
type standing struct {
	own    bool             // so few PoPs use the key that this one takes grants of its own
	frugal bool             // the home is passed by: take what is waited for, and no more
	direct time.Time        // until when the home is passed by, since it did not know
	asked  time.Time        // when another PoP held this one to be the home
	askers map[string]int64 // who did, and in which window last
}

// route returns the home that is to be asked for an account, or nothing when that is the store.
func (l *Ledger) route(a *account, now time.Time) string {
	home := ""
	if l.config.Homes != nil {
		if home = l.config.Homes.Of(a.key, a.limit.Load()); home == l.config.PoP {
			home = ""
		}
	}
	avoided := home != "" && l.avoids(home, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frugal = false
	switch {
	case home == "", a.own, !a.asked.IsZero() && now.Sub(a.asked) < Window:
		return ""
	case avoided, now.Before(a.direct):
		a.frugal = true
		return ""
	}
	return home
}

// calls are those to one home, of which there is one at a time.
type calls struct {
	queue    []*account
	busy     bool
	failures int       // in a row
	avoid    time.Time // until when it is not called
}

func (l *Ledger) avoids(home string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.homes[home]
	return c != nil && now.Before(c.avoid)
}

// homeRequest returns what to ask a home now, and for which accounts; nothing when nobody waits.
func (l *Ledger) homeRequest(home string, now time.Time) (asks []Ask, of []*account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.homes[home]
	if c == nil {
		return nil, nil
	}
	p, taken := l.clock.at(now), 0
	for _, a := range c.queue {
		if len(asks) == MaxAsks {
			break
		}
		taken++
		ask := Ask{Key: a.key, Limit: a.limit.Load()}
		if p != nil && p.news {
			s := a.of(p.number, now)
			s.low.Store(-1) // nothing is held that nobody waits for
			ask.Window = s.window
			if s.spent.Load() < ask.Limit {
				ask.Want = min(a.waiting.Load()-s.left.Load(), ask.Limit)
			}
		}
		if ask.Want <= 0 {
			a.asking.Store(false)
			continue
		}
		asks, of = append(asks, ask), append(of, a)
	}
	if c.queue = append([]*account(nil), c.queue[taken:]...); len(asks) == 0 {
		if c.busy = false; c.failures == 0 {
			delete(l.homes, home)
		}
	}
	return asks, of
}

// homeAnswered takes the answer of a home, or that there is none.
func (l *Ledger) homeAnswered(home string, asks []Ask, of []*account, given []Given, err error, now time.Time) {
	if err == nil && len(given) != len(asks) {
		err = errors.New("it answers other questions")
	}
	later := false
	for i, a := range of {
		switch {
		case err != nil:
		case given[i].Unsure, given[i].Given < 0, given[i].Given == 0 && !given[i].spent(asks[i]), given[i].Given > asks[i].Want,
			given[i].Window < asks[i].Window, given[i].Window > asks[i].Window+ahead:
			a.pass(now)
		default:
			a.receive(asks[i], given[i])
			later = later || given[i].Window > asks[i].Window
		}
		a.asking.Store(false)
	}
	l.mu.Lock()
	switch c := l.homes[home]; {
	case c == nil:
	case err == nil:
		c.failures = 0
	default:
		c.failures++
		c.avoid = now.Add(min(avoidFor<<min(c.failures-1, 8), avoidMost))
		for _, a := range c.queue { // they go elsewhere
			a.asking.Store(false)
		}
		c.queue = nil
	}
	close(l.news)
	l.news = make(chan struct{})
	l.mu.Unlock()
	if later {
		l.poke() // the next window has begun
	}
}

// pass has the home of an account passed by for a while.
func (a *account) pass(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.direct = now.Add(passFor)
}

// receive takes what a home has given.
func (a *account) receive(ask Ask, g Given) {
	left := max(1, g.Left)
	if g.spent(ask) {
		left = 0
	}
	a.grant(Ask{Key: ask.Key, Window: g.Window, Limit: ask.Limit}, Granted{Granted: g.Given, Remaining: left, PoPs: 1})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = ask.Limit >= PerPoP*int64(max(1, g.PoPs))
}

// runHomes asks homes until ctx ends, each in a goroutine of its own while there is something to ask it.
func (l *Ledger) runHomes(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		select {
		case <-l.homeWake:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		for home, c := range l.homes {
			if !c.busy && len(c.queue) > 0 {
				c.busy = true
				asking.Go(func() { l.runHome(ctx, home) })
			}
		}
		l.mu.Unlock()
	}
}

// runHome asks a home as long as there is something to ask: what is asked for meanwhile goes with the next call.
func (l *Ledger) runHome(ctx context.Context, home string) {
	for {
		asks, of := l.homeRequest(home, time.Now())
		if len(asks) == 0 {
			return
		}
		call, cancel := context.WithTimeout(ctx, homePatience)
		given, err := l.config.Homes.Ask(call, home, asks)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.config.Log.Debug("ask the home of keys", "home", home, "keys", len(asks), "error", err)
		}
		l.homeAnswered(home, asks, of, given, err, time.Now())
	}
}
