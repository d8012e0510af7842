package controlplane

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiter gives each of a bounded number of keys a token bucket. It is safe for concurrent use.
type limiter[K comparable] struct {
	every rate.Limit
	burst int
	most  int

	mu      sync.Mutex
	buckets map[K]*rate.Limiter
}

func newLimiter[K comparable](perSecond float64, burst, most int) *limiter[K] {
	return &limiter[K]{every: rate.Limit(perSecond), burst: burst, most: most, buckets: map[K]*rate.Limiter{}}
}

// take takes a token of a key's bucket. If there is none it returns how long to wait for one.
func (l *limiter[K]) take(key K, now time.Time) (wait time.Duration, ok bool) {
	bucket := l.bucket(key, now)
	r := bucket.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return wait, false
	}
	return 0, true
}

// bucket returns that of a key. When there are too many, those that are full again are forgotten, or else all.
func (l *limiter[K]) bucket(key K, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.buckets[key]
	if bucket != nil {
		return bucket
	}
	if len(l.buckets) >= l.most {
		for key, b := range l.buckets {
			if b.TokensAt(now) >= float64(l.burst) {
				delete(l.buckets, key)
			}
		}
		if len(l.buckets) >= l.most {
			clear(l.buckets)
		}
	}
	bucket = rate.NewLimiter(l.every, l.burst)
	l.buckets[key] = bucket
	return bucket
}

// sourceOf returns whom a remote address stands for: the address, or the /64 of an IPv6 one, of which one client has all.
func sourceOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}
