package peer

import (
	"errors"
	"sync"
	"time"
)

// maxNonces is how many calls are remembered in one generation, which lasts 2 × Fresh: 4,000 a second, in 10 MB.
const maxNonces = 1 << 18

var errTooMany = errors.New("too many calls to remember")

// nonces knows the calls that were made, so that none is taken twice, whatever clocks do: of what is forgotten, the latest time is known, and
// nothing as old is taken any more. It may be used concurrently.
type nonces struct {
	mu                sync.Mutex
	current, previous map[[nonceSize]byte]struct{}
	turned            time.Time
	newest, before    int64 // times of calls of the two generations
	floor             int64 // no call as old as this is taken, in Unix milliseconds
}

// newNonces returns an empty memory: what was called before now may be known to a process before this one.
func newNonces(now time.Time) *nonces {
	return &nonces{current: map[[nonceSize]byte]struct{}{}, turned: now, floor: now.UnixMilli() - 1}
}

// use takes a call that is genuine and fresh. The errors are ErrAgain, ErrStale, or that there is no room.
func (n *nonces) use(p *pass, now time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.turned) >= 2*Fresh {
		n.floor = max(n.floor, n.before)
		n.previous, n.before = n.current, n.newest
		n.current, n.newest, n.turned = make(map[[nonceSize]byte]struct{}, len(n.current)), 0, now
	}
	if p.time <= n.floor {
		return ErrStale
	}
	if _, used := n.current[p.nonce]; used {
		return ErrAgain
	}
	if _, used := n.previous[p.nonce]; used {
		return ErrAgain
	}
	if len(n.current) >= maxNonces {
		return errTooMany
	}
	n.current[p.nonce] = struct{}{}
	n.newest = max(n.newest, p.time)
	return nil
}
