package packet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// record is what was seen of a world while it ran.
type record struct {
	began   time.Time
	clients []*client

	mu      sync.Mutex
	posts   []*post
	acks    map[string]ack // by id of the request, the first of each
	events  []*happening
	notes   []note
	asks    uint64 // of clients, to resolvers
	hits    uint64
	ours    map[int]float64 // questions at our servers, by step
	entries int             // in all caches
	most    int
	crowds  map[[2]int]bool // event and network
	downs   map[string]health.Verdicts
}

// post is one payload.
type post struct {
	client, network int
	start, end      time.Time
	took            time.Duration // to its answer, without DNS
	first, pop      int           // that was tried first, and that answered for good; -1 for none
	status          int
	fresh           bool // on a new connection
	lost            bool
	moved           bool // another PoP than the last time
	id              string
}

func (p *post) accepted() bool { return !p.lost && p.status == 202 }

// ack is what a PoP heard of a cluster.
type ack struct {
	at      time.Time
	pop     int
	cluster string
}

// happening is an event of the timeline that hits PoPs.
type happening struct {
	what     string
	names    string
	at, end  time.Time // end is zero while it lasts
	pops     []int
	wrong    time.Duration // until a client was answered one of the PoPs first, by the latest
	verdicts map[string]map[int]time.Duration
}

type note struct {
	at   time.Time
	text string
}

// note notes what happens now.
func (e *engine) note(format string, args ...any) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	e.notes = append(e.notes, note{time.Now(), fmt.Sprintf(format, args...)})
}

// posted takes a post that is over.
func (e *engine) posted(p *post) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	e.posts = append(e.posts, p)
}

// acknowledged takes that a cluster has an envelope.
func (e *engine) acknowledged(id string, pop int, cluster string) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	if e.acks == nil {
		e.acks = map[string]ack{}
	}
	if _, known := e.acks[id]; !known {
		e.acks[id] = ack{time.Now(), pop, cluster}
	}
}

// asked takes a client's question to a resolver.
func (e *engine) asked(hit bool) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	e.asks++
	if hit {
		e.hits++
	}
}

// asksUs takes a question of a resolver to one of our servers.
func (e *engine) asksUs() {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	if e.ours == nil {
		e.ours = map[int]float64{}
	}
	e.ours[e.step(time.Now())]++
}

// step is the number of the scenario's step at a time.
func (e *engine) step(at time.Time) int { return max(0, int(at.Sub(e.began)/e.stepLength())) }

func (e *engine) stepLength() time.Duration {
	return cmp.Or(time.Duration(e.scenario.Step), time.Minute)
}

// keeps takes that caches have so many answers more.
func (e *engine) keeps(more int) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	e.entries += more
	e.most = max(e.most, e.entries)
}

// answered takes that a client was answered a PoP as its first choice.
func (e *engine) answered(pop int) {
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	for _, h := range e.events {
		if h.what == "death" && h.end.IsZero() && slices.Contains(h.pops, pop) {
			h.wrong = time.Since(h.at)
		}
	}
}

// happens begins an event that hits PoPs, which is told by their names or others.
func (e *engine) happens(what string, pops []int, names ...string) *happening {
	h := &happening{what: what, at: time.Now(), pops: pops, verdicts: map[string]map[int]time.Duration{}}
	e.record.mu.Lock()
	e.events = append(e.events, h)
	e.record.mu.Unlock()
	if h.names = strings.Join(names, ", "); h.names == "" {
		h.names = e.namesOf(pops)
	}
	e.note("%s of %s", what, h.names)
	return h
}

// over ends an event.
func (e *engine) over(h *happening) {
	e.record.mu.Lock()
	h.end = time.Now()
	e.record.mu.Unlock()
	e.note("end of the %s of %s", h.what, h.names)
}

func (e *engine) namesOf(pops []int) string {
	var names []string
	for _, p := range pops {
		names = append(names, e.world.PoPs[p].Name)
	}
	if len(names) == 0 {
		return "no PoP"
	}
	return strings.Join(names, ", ")
}

// judged takes the verdicts that a DNS node has reached.
func (e *engine) judged(d *dnsNode, v health.Verdicts) {
	type change struct{ name, from, to, why string }
	var changes []change
	e.record.mu.Lock()
	if e.downs == nil {
		e.downs = map[string]health.Verdicts{}
	}
	before := e.downs[d.name]
	e.downs[d.name] = v
	for i, site := range e.world.PoPs {
		t := health.Target{Kind: health.PoP, Name: site.Name}
		was, is := before[t].Status, v[t].Status
		if !e.began.IsZero() && was != is && is != "" && (was == health.Down || is == health.Down) {
			changes = append(changes, change{site.Name, string(was), string(is), v[t].Reason})
		}
		if is != health.Down {
			continue
		}
		for _, h := range e.events {
			if h.verdicts[d.name] == nil {
				h.verdicts[d.name] = map[int]time.Duration{}
			}
			if _, reached := h.verdicts[d.name][i]; !reached && h.end.IsZero() && slices.Contains(h.pops, i) {
				h.verdicts[d.name][i] = time.Since(h.at)
			}
		}
	}
	e.record.mu.Unlock()
	for _, c := range changes {
		e.note("verdict at the DNS node beside %s: %s was %s and is %s", d.name, c.name, c.from, c.to)
	}
}

// largest returns the PoP that serves most clients now.
func (e *engine) largest() int {
	counts := make([]int, len(e.world.PoPs))
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	last := map[int]int{}
	for _, p := range e.posts {
		if p.accepted() && p.pop >= 0 {
			last[p.client] = p.pop
		}
	}
	for _, pop := range last {
		counts[pop]++
	}
	best := 0
	for i, n := range counts {
		if n > counts[best] {
			best = i
		}
	}
	return best
}

// near reports whether a network is near the place of an event's crowd.
func (e *engine) near(event, network int) bool {
	key := [2]int{event, network}
	e.record.mu.Lock()
	defer e.record.mu.Unlock()
	near, known := e.crowds[key]
	if known {
		return near
	}
	crowd := e.scenario.Timeline[event].Crowd
	if place, err := scenario.PlaceOf(crowd.Near); err == nil {
		near = rtt.Default().RTT(place.Location, e.world.Metro(network).Location) <= time.Duration(crowd.Within)
	}
	if e.crowds == nil {
		e.crowds = map[[2]int]bool{}
	}
	e.crowds[key] = near
	return near
}

// idOf returns the id of a request that was accepted.
func idOf(body []byte) string {
	var accepted dataplane.Accepted
	if json.Unmarshal(body, &accepted) != nil {
		return ""
	}
	return accepted.ID
}
