package forward

import (
	"time"
)

// Stats are totals since the start, and what is now.
type Stats struct {
	Acknowledged uint64            // envelopes that a cluster has
	Retried      uint64            // times that an envelope was sent and has to be sent again
	Dead         map[string]uint64 // dead letters by reason: refused, expired, unsendable; all are there from the start
	InFlight     int               // envelopes that were sent and are not answered
	Parked       int               // envelopes that wait for room or for a cluster to be well
	Postponed    int               // envelopes that wait for another attempt
	Budget       float64           // retries that may be sent at once
	Clusters     map[string]ClusterStats
}

// ClusterStats tell of one cluster, over its endpoints.
type ClusterStats struct {
	Standing    string // as Standings tells it
	InFlight    int
	Queued      int // envelopes that wait for a connection or for the limit
	Limit       int // envelopes that may be on the way now
	Connections int
	RTT         time.Duration // measured; 0 for none
	Predicted   time.Duration // by the model
	Share       float64       // of the slow start; 1 when it is over
	Endpoints   map[string]EndpointStats
}

// EndpointStats tell of one URL.
type EndpointStats struct {
	Breaker     string        // closed, open or half-open
	Depth       int           // to which requests are pipelined; 0 with HTTP/2
	Answer      time.Duration // smoothed time from request to answer
	LastFailure string        // "" for none since the start
}

// Stats returns totals and what is now.
func (f *Forwarder) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	s := Stats{
		Acknowledged: f.counts.acknowledged.Load(), Retried: f.counts.retried.Load(),
		Dead: map[string]uint64{
			"refused": f.counts.refused.Load(), "expired": f.counts.expired.Load(), "unsendable": f.counts.unsendable.Load(),
		},
		InFlight: f.inFlight, Parked: f.parkedJobs, Postponed: len(f.later), Budget: f.budget.tokens, Clusters: map[string]ClusterStats{},
	}
	for name, c := range f.clusters {
		told := ClusterStats{Standing: c.told(), Predicted: c.predicted, Share: c.share(now), Endpoints: map[string]EndpointStats{}}
		told.RTT, _ = c.rtt()
		for _, e := range c.endpoints {
			told.InFlight += e.inFlight
			told.Queued += e.queue.n
			told.Limit += e.bound(now)
			told.Connections += len(e.conns)
			one := EndpointStats{Breaker: breakerStates[e.breaker], Depth: e.pipeline(now), Answer: e.answer, LastFailure: e.lastFailure}
			if len(e.conns) > 0 && e.conns[0].http2 != nil {
				one.Depth = 0
			}
			told.Endpoints[e.url] = one
		}
		s.Clusters[name] = told
	}
	return s
}

// Load is what a load report says of forwarding.
type Load struct {
	InFlight int           // envelopes that were sent and are not answered
	Waiting  int           // envelopes that were taken from the spool and wait
	Oldest   time.Duration // since the oldest of those that wait arrived; 0 when none does. Those that are still in the spool are younger, as a rule
}

// Load returns what is under way. It may be called several times a second.
func (f *Forwarder) Load() Load {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := Load{InFlight: f.inFlight, Waiting: len(f.later) + f.parkedJobs}
	var oldest time.Time
	older := func(at time.Time) {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	for _, p := range f.later {
		older(p.item.Received)
	}
	for _, lot := range f.parked {
		if lot.first != nil {
			older(lot.first.item.Received)
		}
	}
	for _, c := range f.clusters {
		for _, e := range c.endpoints {
			l.Waiting += e.queue.n
			if e.queue.first != nil {
				older(e.queue.first.item.Received)
			}
		}
	}
	if !oldest.IsZero() {
		l.Oldest = max(0, time.Since(oldest))
	}
	return l
}
