package scenario

import "time"

// Run is what one engine measured of one policy with one seed. Equal scenario, policy, seed and scale give equal bytes as JSON, on any machine.
type Run struct {
	Scale         Scale                   `json:"scale"`
	Policy        PolicyName              `json:"policy"`
	Variant       string                  `json:"variant,omitempty"`
	Seed          uint64                  `json:"seed"`
	Figures       map[string]Figure       `json:"figures"`
	Distributions map[string]Distribution `json:"distributions,omitempty"` // by the names of the figures without their last part: rtt, post, fresh, cluster
	Series        map[string]Series       `json:"series,omitempty"`        // load/POP, requests, refused, rtt.mean, moved, questions
	Cells         []Cell                  `json:"cells,omitempty"`         // for the map
	PoPs          []PoP                   `json:"pops,omitempty"`
	Notes         []string                `json:"notes,omitempty"` // what happened when, in words: "06:00:00 fra1 dies", "06:00:02 verdict: fra1 down"
}

// Figure is one measured number.
//
// The names that engines share, all weighted by clients or posts:
//
//	rtt.p50 rtt.p90 rtt.p99 rtt.mean   ms, of clients' true RTT to the PoP that serves them
//	off.mean off.p99                   ms, by which that is above their best PoP's, whatever its load
//	off.25ms                           part of clients 25 ms or more above their best
//	within.10ms                        part of clients whose PoP is at most 10 ms away
//	cluster.within.30ms                part of clients whose PoP is at most 30 ms from its cluster
//	fresh.p50 fresh.p99                ms, from the first packet of a new connection to its 202
//	post.p50 post.p99                  ms, on a connection that is open
//	acknowledged.p50                   ms, from the client's first packet until the PoP knows that a cluster has it
//	load.max                           highest part of its capacity that any PoP was given in any step
//	overloaded                         PoPs that got more than they can do in some step
//	failed                             PoPs that fell over under load (cascades)
//	posts accepted refused lost        posts; lost are those that nobody answered
//	questions                          DNS questions at our servers
//	cache.hits                         part of clients' questions answered by resolvers' caches
//	cache.entries                      answers kept by resolvers at the most
//	moved                              part of clients an hour that change PoPs, the highest
//	last.wrong                         s from an event until no client is answered a dead PoP (the worst event)
//	next.202                           s from an event until every client that it hit has a 202 again
//	verdict                            s from an event until the verdict
type Figure struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"` // ms, s, or empty for counts and parts
}

// Distribution is a weighted histogram: Weights[i] is the weight of values in Bounds[i]..Bounds[i+1]; the last bin has no end.
type Distribution struct {
	Unit    string    `json:"unit"`
	Bounds  []float64 `json:"bounds"`
	Weights []float64 `json:"weights"`
}

// Series is a figure over time.
type Series struct {
	Unit   string        `json:"unit,omitempty"`
	Step   time.Duration `json:"step_ns"`
	Values []float64     `json:"values"`
}

// Cell is a group of clients at one place of the map.
type Cell struct {
	LatDeg float64 `json:"lat"`
	LonDeg float64 `json:"lon"`
	Weight float64 `json:"weight"`
	RTT    float64 `json:"rtt_ms"` // median, of its clients
	PoP    string  `json:"pop"`    // of most of them
}

// PoP is a point of presence on the map.
type PoP struct {
	Name    string  `json:"name"`
	Country string  `json:"country"` // ISO 3166-1 alpha-2
	LatDeg  float64 `json:"lat"`
	LonDeg  float64 `json:"lon"`
	Share   float64 `json:"share"`    // of clients
	Load    float64 `json:"load_max"` // highest part of its capacity
}

// Progress tells how far a run is, 0..1. It may be called by several goroutines.
type Progress func(done float64)
