package quota

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	patience = 2 * time.Second        // of a request that waits for a grant, and of an exchange
	pause    = 50 * time.Millisecond  // from the beginning of an exchange to that of the next: what is asked for meanwhile goes with it
	poll     = 500 * time.Millisecond // from an exchange to the next when nothing is asked for
)

// ErrAway is returned when it is not known whether there is any quota left: the store cannot be asked.
var ErrAway = errors.New("the store of quota cannot be asked")

// Config is what a Ledger needs.
type Config struct {
	PoP   string // the PoP's name, of which there is one Ledger
	Store Store
	Homes Homes        // nil when each PoP counts for itself, whatever the quota
	Log   *slog.Logger // nil for none
}

// Ledger is one PoP's account of its grants. It may be used concurrently. It asks for grants while it runs.
type Ledger struct {
	config   Config
	position atomic.Pointer[position]
	accounts sync.Map // *account by key
	wake     chan struct{}
	homeWake chan struct{}
	waited   atomic.Uint64

	mu    sync.Mutex
	clock clock
	lost  int64
	queue []*account
	homes map[string]*calls
	news  chan struct{} // closed after the next exchange, or call to a home
	fault error         // of the last exchange
	swept time.Time
}

// New returns a Ledger without grants.
func New(c Config) *Ledger {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Ledger{config: c, wake: make(chan struct{}, 1), homeWake: make(chan struct{}, 1), homes: map[string]*calls{}, news: make(chan struct{})}
}

// Decision is whether a request is admitted.
type Decision struct {
	Admitted   bool
	Window     int64         // its number
	Limit      int64         // of the window
	Remaining  int64         // what this PoP has, with an equal share of what no PoP has: all there is, if it is the only one
	Reset      time.Duration // until the window ends
	RetryAfter time.Duration // when not admitted: until a client that is alone is admitted
}

// outcome is what a try came to.
type outcome int

const (
	admitted outcome = iota
	denied
	unknown // it is being asked for
	away    // it cannot be asked for
)

// Admit takes one from the key's quota of so many requests a window. The key must be a known one: each has an account for as long as it
// is used. With an error (ErrAway, or that of ctx) it is not known whether there is any left. It waits only when the account is empty.
func (l *Ledger) Admit(ctx context.Context, key string, limit int64, now time.Time) (Decision, error) {
	d, result := l.try(key, limit, now)
	if result == admitted || result == denied {
		return d, nil
	}
	return l.wait(ctx, key, limit, now)
}

// wait is Admit for an account that is empty.
func (l *Ledger) wait(ctx context.Context, key string, limit int64, now time.Time) (Decision, error) {
	l.waited.Add(1)
	began, a := time.Now(), l.account(key)
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		news, fault, began2 := l.news, l.fault, l.clock.number > 0
		l.mu.Unlock()
		d, result := l.try(key, limit, now.Add(time.Since(began)))
		if result == admitted || result == denied {
			return d, nil
		}
		if result == away && (fault != nil || began2) {
			return d, errors.Join(ErrAway, fault)
		}
		select {
		case <-news:
		case <-timeout.C:
			return d, ErrAway
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

// try admits a request without waiting.
func (l *Ledger) try(key string, limit int64, now time.Time) (Decision, outcome) {
	p := l.position.Load()
	if p == nil || !now.Before(p.until) {
		if p = l.locate(now); p == nil {
			return Decision{Limit: limit}, away
		}
	}
	a := l.account(key)
	s := a.sliceAt(p, limit, now)
	if a.local.Load() != s.window {
		a.local.Store(s.window)
	}
	d := Decision{Window: s.window, Limit: limit, Reset: max(0, p.ends.Sub(now))}
	if left, ok := s.take(); ok {
		if left <= s.low.Load() {
			l.ask(a, now)
		}
		d.Admitted, d.Remaining = true, min(left+s.share.Load(), limit)
		return d, admitted
	}
	d.RetryAfter = d.Reset + margin
	if spent := s.spent.Load(); spent >= limit || p.rest {
		return d, denied
	}
	if !p.news {
		return d, away
	}
	l.ask(a, now)
	if remaining := s.remaining.Load(); remaining >= 0 && remaining <= s.scraps.Load() {
		a.missed.Add(1) // the rest of it is not worth waiting for
		return d, denied
	}
	return d, unknown
}

// margin is how long it may take until a PoP knows of the next window, and has a grant of it.
const margin = time.Second

// locate finds out in which window the PoP is.
func (l *Ledger) locate(now time.Time) *position {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.clock.at(now)
	l.position.Store(p)
	return p
}

func (l *Ledger) account(key string) *account {
	if known, ok := l.accounts.Load(key); ok {
		return known.(*account)
	}
	known, _ := l.accounts.LoadOrStore(key, &account{key: key})
	return known.(*account)
}

// ask has the store asked for more for an account, or the home of its key.
func (l *Ledger) ask(a *account, now time.Time) {
	if a.asking.Load() || !a.asking.CompareAndSwap(false, true) {
		return
	}
	home := l.route(a, now)
	l.mu.Lock()
	if home == "" {
		l.queue = append(l.queue, a)
		l.mu.Unlock()
		l.poke()
		return
	}
	if l.homes[home] == nil {
		l.homes[home] = &calls{}
	}
	l.homes[home].queue = append(l.homes[home].queue, a)
	l.mu.Unlock()
	select {
	case l.homeWake <- struct{}{}:
	default:
	}
}

// poke has the store asked soon.
func (l *Ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// request returns what to ask the store now, and for which accounts.
func (l *Ledger) request(now time.Time) (r Request, of []*account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r = Request{PoP: l.config.PoP, Lost: l.lost}
	if l.clock.due(now) {
		r.Open = l.clock.number
	}
	p := l.clock.at(now)
	l.position.Store(p)
	if p == nil {
		for _, a := range l.queue {
			a.asking.Store(false)
		}
		l.queue = nil
		return r, nil
	}
	taken := 0
	for _, a := range l.queue {
		asks := a.asks(p, now)
		if len(r.Asks)+len(asks) > MaxAsks {
			break
		}
		if taken++; len(asks) == 0 {
			a.asking.Store(false)
			continue
		}
		for _, ask := range asks {
			r.Asks, of = append(r.Asks, ask), append(of, a)
		}
	}
	l.queue = append([]*account(nil), l.queue[taken:]...)
	return r, of
}

// answered takes the answer to a request, or that there is none.
func (l *Ledger) answered(r Request, of []*account, answer Answer, err error, asked, now time.Time) {
	if err == nil && len(answer.Grants) != len(r.Asks) {
		err = errors.New("it answers other questions")
	}
	if err == nil {
		for i, ask := range r.Asks {
			if g := answer.Grants[i]; g.Granted >= 0 && g.Granted <= ask.Want {
				of[i].grant(ask, g)
			}
		}
	}
	for _, a := range of {
		a.asking.Store(false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.lost = 0
		if answer.Window < l.clock.number {
			l.lost = l.clock.number
		}
		l.clock.hear(answer.Window, answer.Rest, asked, now)
		l.position.Store(l.clock.at(now))
	}
	l.fault = err
	close(l.news)
	l.news = make(chan struct{})
}

// look has slices taken ahead, and drops accounts that are not in use.
func (l *Ledger) look(now time.Time) {
	p := l.position.Load()
	if p == nil || now.Sub(l.swept) < sweep {
		return
	}
	l.swept = now
	l.accounts.Range(func(key, value any) bool {
		a := value.(*account)
		s := a.current.Load()
		switch {
		case s != nil && s.window < p.number-ahead && !a.asking.Load() && a.waiting.Load() == 0:
			l.accounts.CompareAndDelete(key, value)
		case s != nil && s.window == p.number && p.ends.Sub(now) < Window/2 && s.granted.Load() > s.left.Load():
			l.ask(a, now)
		}
		return true
	})
}

// Run asks for grants and follows the windows until ctx ends, whose error it returns. It may be called once.
func (l *Ledger) Run(ctx context.Context) error {
	var asking sync.WaitGroup
	asking.Go(func() { l.runHomes(ctx) })
	defer asking.Wait()
	for {
		began := time.Now()
		l.look(began)
		r, of := l.request(began)
		exchange, cancel := context.WithTimeout(ctx, patience)
		answer, err := l.config.Store.Exchange(exchange, r)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.tell(err)
		l.answered(r, of, answer, err, began, time.Now())
		if err := l.rest(ctx, began, err != nil); err != nil {
			return err
		}
	}
}

// tell logs when the store goes and comes.
func (l *Ledger) tell(err error) {
	l.mu.Lock()
	before, number := l.fault, l.clock.number
	l.mu.Unlock()
	switch {
	case err != nil && before == nil:
		l.config.Log.Warn("no grants of quota are to be had", "window", number, "error", err)
	case err == nil && before != nil:
		l.config.Log.Info("grants of quota are to be had again", "window", number)
	}
}

// rest waits until the next exchange is due.
func (l *Ledger) rest(ctx context.Context, began time.Time, failed bool) error {
	l.mu.Lock()
	wait, more := poll, len(l.queue) > 0
	if l.clock.number > 0 {
		if left := time.Until(l.clock.seen.Add(Window)); left > 0 && left < wait {
			wait = left
		}
	}
	l.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if !more && !failed {
		select {
		case <-l.wake:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if failed {
		timer.Reset(4 * pause)
	} else {
		timer.Reset(pause - time.Since(began))
	}
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Waited returns how many requests have waited for the store.
func (l *Ledger) Waited() uint64 { return l.waited.Load() }
