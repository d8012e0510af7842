package quota

import (
	"context"
	"sync"
	"time"
)

// Window is the length of a window.
const Window = time.Minute

// grants is how many grants make a quota.
const grants = 10

// grantTimeout is how long a request waits for a grant.
const grantTimeout = 2 * time.Second

// Store holds what has been granted of each key in each window, for all PoPs.
type Store interface {
	// Grant takes up to want of what is left of the key's limit in the window, and returns how much that is. It is atomic
	// among all that share the store.
	Grant(ctx context.Context, key string, window, limit, want int64) (granted int64, err error)
}

// Ledger is one PoP's account of its grants. It may be used concurrently.
type Ledger struct {
	store Store

	mu       sync.Mutex
	window   int64 // the newest
	accounts map[string]*account
}

// account is what a key has left in the newest window.
type account struct {
	left      int64
	exhausted bool          // there is no more to be granted
	asking    chan struct{} // closed when the grant that is asked for has come; nil when none is
	err       error         // of the latest asking
}

// NewLedger returns a Ledger without grants.
func NewLedger(store Store) *Ledger { return &Ledger{store: store, accounts: map[string]*account{}} }

// Decision is whether a request is admitted.
type Decision struct {
	Admitted   bool
	Window     int64         // its number
	Limit      int64         // of the window
	Remaining  int64         // what is known to be left
	Reset      time.Duration // until the window ends
	RetryAfter time.Duration // until the next window, when not admitted
}

// Admit takes one from the key's quota at a time. With an error it is not known whether there is any left: the store could
// not be asked.
func (l *Ledger) Admit(ctx context.Context, key string, limit int64, now time.Time) (Decision, error) {
	window := now.Unix() / int64(Window/time.Second)
	denied := Decision{Window: window, Limit: limit, RetryAfter: time.Unix((window+1)*int64(Window/time.Second), 0).Sub(now)}
	denied.Reset = denied.RetryAfter
	for {
		l.mu.Lock()
		if window > l.window {
			l.window = window
			clear(l.accounts)
		}
		if window < l.window { // the clock went back, or the request is late: its window is over
			l.mu.Unlock()
			return denied, nil
		}
		a := l.accounts[key]
		if a == nil {
			a = new(account)
			l.accounts[key] = a
		}
		switch {
		case a.left > 0:
			a.left--
			admitted := Decision{Admitted: true, Window: window, Limit: limit, Remaining: a.left, Reset: denied.Reset}
			l.mu.Unlock()
			return admitted, nil
		case a.exhausted:
			l.mu.Unlock()
			return denied, nil
		}
		asks := a.asking == nil
		if asks {
			a.asking = make(chan struct{})
		}
		asking := a.asking
		l.mu.Unlock()
		if asks {
			l.ask(ctx, a, key, window, limit)
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return Decision{}, ctx.Err()
		}
		l.mu.Lock()
		err := a.err
		l.mu.Unlock()
		if err != nil {
			return Decision{}, err
		}
	}
}

// ask gets a grant for an account.
func (l *Ledger) ask(ctx context.Context, a *account, key string, window, limit int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grantTimeout) // others wait for it too
	defer cancel()
	granted, err := l.store.Grant(ctx, key, window, limit, max(1, limit/grants))
	l.mu.Lock()
	defer l.mu.Unlock()
	a.err = err
	if err == nil {
		a.left += granted // an account of an earlier window is out of use by now, and the grant is lost
		a.exhausted = granted == 0
	}
	close(a.asking)
	a.asking = nil
}
