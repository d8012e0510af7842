package forward

import (
	"container/heap"
	"context"
	"time"
)

// keep does what is due until ctx ends.
func (f *Forwarder) keep(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var refreshed, measured time.Time
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if now.Sub(measured) >= measureEach {
			measured = now
			f.renewTokens()
		}
		f.mu.Lock()
		if now.Sub(refreshed) >= refreshEach {
			if refreshed = now; measured.Equal(now) {
				f.measure(now)
			}
			f.refresh(now)
			f.watch(now)
		}
		f.empty(now)
		for len(f.later) > 0 && !now.Before(f.later[0].until) {
			j := heap.Pop(&f.later).(postponed).job
			f.laterSize -= len(j.item.Body)
			f.place(j, now)
		}
		f.unpark(now)
		f.mu.Unlock()
	}
}

// empty moves what waits for endpoints that the topology has no more.
func (f *Forwarder) empty(now time.Time) {
	evicted := f.evicted
	f.evicted = nil
	for _, e := range evicted {
		f.evict(e, 0, now)
	}
}

// renewTokens makes the heads of requests anew where a cluster's token has changed.
func (f *Forwarder) renewTokens() {
	f.mu.Lock()
	var all []*endpoint
	for _, c := range f.clusters {
		all = append(all, c.endpoints...)
	}
	f.mu.Unlock()
	for _, e := range all {
		e.renewToken()
	}
}

func (e *endpoint) renewToken() {
	token := e.forwarder.config.ClusterToken(e.cluster.name)
	if known := e.token.Load(); known != nil && *known == token {
		return
	}
	if !isValue(token) {
		e.forwarder.config.Log.Error("the token of a cluster cannot stand in a header field; envelopes go without one", "cluster", e.cluster.name)
	}
	head := e.head1(token)
	e.head.Store(&head)
	e.token.Store(&token)
}

// measure takes over the RTT of connections. The caller holds mu.
func (f *Forwarder) measure(now time.Time) {
	for _, c := range f.clusters {
		for _, e := range c.endpoints {
			shortest := time.Duration(0)
			for _, c := range e.conns {
				if rtt := c.rtt(); rtt > 0 && (shortest == 0 || rtt < shortest) {
					shortest = rtt
				}
			}
			if shortest == 0 && len(e.conns) > 0 { // not TCP: the best answer time is the nearest that is known
				shortest = e.lowest
			}
			switch {
			case shortest == 0:
			case e.rtt == 0:
				e.rtt = shortest
			default:
				e.rtt += (shortest - e.rtt) / 4
			}
			if len(e.conns) == 0 && e.dialling == 0 && e.breaker == closed && !now.Before(e.warmAt) && f.running != nil {
				e.open() // to be ready when it is needed, and to know how far it is
			}
		}
	}
}
