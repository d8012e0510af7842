// Package whatif holds two views against each other for one population of clients: who would move, what would happen to their
// round-trip times, and which PoPs would be overloaded, also with each single PoP lost. Plans, checks before a drain, the page
// and flow-level simulation ask it.
//
//	report := whatif.Compare(now, planned, "intake.example.net", router.IPv4, population)
//
// It is pure and deterministic: it decides each client by router.Decide.
package whatif

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"github.com/isochrone/isochrone/router"
)

// Demand is what the clients of a prefix ask for.
type Demand struct {
	Client netip.Prefix
	Weight float64 // requests a second, or any other measure; more than 0
}

// ErrNoService is returned for a service that one of the views has not.
var ErrNoService = errors.New("no such service")

// Report is what differs between two views. Weights are those of the population.
type Report struct {
	Service   string          `json:"service"`
	Weight    float64         `json:"weight"` // of the whole population
	Moved     float64         `json:"moved"`  // weight that is answered otherwise
	Moves     []Move          `json:"moves"`  // the largest first
	World     RTTs            `json:"world"`
	Countries map[string]RTTs `json:"countries"` // by code; empty for clients whose place is not known
	PoPs      map[string]Load `json:"pops"`
	Losses    map[string]Loss `json:"losses"`   // of each PoP that the second view answers
	Unserved  [2]float64      `json:"unserved"` // weight that gets no answer, before and after
}

// Move is weight that goes from one PoP to another; no name stands for no answer.
type Move struct {
	From   string  `json:"from"`
	To     string  `json:"to"`
	Weight float64 `json:"weight"`
}

// RTTs are expected round-trip times in milliseconds, before and after.
type RTTs struct {
	Weight float64    `json:"weight"`
	P50    [2]float64 `json:"p50_ms"`
	P95    [2]float64 `json:"p95_ms"`
	P99    [2]float64 `json:"p99_ms"`
}

// Load is what a PoP has to bear.
type Load struct {
	Before   float64 `json:"before"`
	After    float64 `json:"after"`
	Capacity float64 `json:"capacity"` // after; 0 where it is not stated
}

// Loss is what the loss of one PoP does to the second view.
type Loss struct {
	Moved      float64  `json:"moved"`              // weight that goes elsewhere
	Unserved   float64  `json:"unserved,omitempty"` // of it, that gets no answer
	P50        float64  `json:"p50_ms"`             // of the world, then
	P95        float64  `json:"p95_ms"`
	P99        float64  `json:"p99_ms"`
	Overloaded []string `json:"overloaded,omitempty"` // PoPs that would have more than their capacity
	Worst      float64  `json:"worst"`                // the highest load relative to a capacity, 0 where none is stated
}

// Compare holds two views against each other. The error is ErrNoService.
func Compare(before, after *router.View, service string, f router.Family, population []Demand) (*Report, error) {
	c := &comparison{views: [2]*router.View{before, after}, family: f, names: map[string]int{}}
	for i, v := range c.views {
		var ok bool
		if c.service[i], ok = v.Table.Service(service); !ok {
			return nil, fmt.Errorf("%w: %s", ErrNoService, service)
		}
		for n := range v.Table.Choices() {
			name, _ := v.Table.PoP(router.Choice(n))
			if _, known := c.names[name]; !known {
				c.names[name] = len(c.pops)
				c.pops = append(c.pops, name)
			}
			c.number[i] = append(c.number[i], c.names[name])
		}
	}
	c.names[""], c.pops = len(c.pops), append(c.pops, "")
	c.lost = make([]*router.View, after.Table.PoPs())
	for n := range c.lost {
		name, _ := after.Table.PoP(router.Choice(n))
		c.lost[n] = &router.View{Table: after.Table, State: after.State.Without(after.Table, name)}
	}
	report := c.run(population).report(c)
	report.Service = service
	return report, nil
}

// comparison is what all workers share.
type comparison struct {
	views   [2]*router.View
	service [2]router.ServiceID
	family  router.Family
	lost    []*router.View // the second view without each of its PoPs
	pops    []string       // of both views; the last one is no answer
	names   map[string]int
	number  [2][]int // of each view's choices, in pops
}

// run shares the population among workers. Each takes clients of neighbouring places, whose round-trip times are found
// together.
func (c *comparison) run(population []Demand) *tally {
	type located struct {
		Demand
		location uint32
		country  string
	}
	order := make([]located, len(population))
	for i, d := range population {
		order[i].Demand = d
		location, place := c.views[1].Table.Location(d.Client.Addr())
		if order[i].location = location; place != nil {
			order[i].country = place.Country
		}
	}
	slices.SortStableFunc(order, func(a, b located) int { return cmp.Compare(a.location, b.location) })
	workers := runtime.GOMAXPROCS(0)
	tallies := make([]*tally, workers)
	var running sync.WaitGroup
	for i := range workers {
		tallies[i] = newTally(c)
		part := order[len(order)*i/workers : len(order)*(i+1)/workers]
		running.Go(func() {
			meters := [2]*router.Meter{c.views[0].Table.Meter(), c.views[1].Table.Meter()}
			for _, d := range part {
				tallies[i].add(c, meters, d.Demand, d.country)
			}
		})
	}
	running.Wait()
	for _, other := range tallies[1:] {
		tallies[0].merge(other)
	}
	return tallies[0]
}

// answer is what a client gets by one view: PoPs in equal parts.
type answer struct {
	pops [router.MaxAnswers]int
	ms   [router.MaxAnswers]float64
	n    int
}

func (c *comparison) ask(view int, v *router.View, client netip.Prefix, m *router.Meter) (answer, router.Answer) {
	decided := router.Decide(v, c.service[view], c.family, client, nil)
	a := answer{n: decided.N}
	for i, choice := range decided.Choices[:decided.N] {
		a.pops[i] = c.number[view][choice]
		a.ms[i] = m.Milliseconds(client.Addr(), choice)
	}
	return a, decided
}

// tally is what a worker has counted.
type tally struct {
	weight, moved float64
	unserved      [2]float64
	moves         map[[2]int]float64
	loads         [2][]float64
	countries     map[string]*[2]histogram
	world         [2]histogram
	losses        []loss // by choice of the second view
}

type loss struct {
	moved, unserved float64
	loads           []float64  // differences to the loads without the loss
	rtts            *histogram // likewise; nil until somebody moves
}

func newTally(c *comparison) *tally {
	t := &tally{moves: map[[2]int]float64{}, countries: map[string]*[2]histogram{}, losses: make([]loss, len(c.lost))}
	for i := range t.loads {
		t.loads[i] = make([]float64, len(c.pops))
	}
	return t
}

// add counts one client.
func (t *tally) add(c *comparison, meters [2]*router.Meter, d Demand, country string) {
	t.weight += d.Weight
	by := t.countries[country]
	if by == nil {
		by = new([2]histogram)
		t.countries[country] = by
	}
	var answers [2]answer
	var decided router.Answer
	for i, v := range c.views {
		answers[i], decided = c.ask(i, v, d.Client, meters[i])
		part := d.Weight / float64(max(answers[i].n, 1))
		if answers[i].n == 0 {
			t.unserved[i] += d.Weight
		}
		for j := range answers[i].n {
			t.loads[i][answers[i].pops[j]] += part
			by[i].add(answers[i].ms[j], part)
			t.world[i].add(answers[i].ms[j], part)
		}
	}
	t.move(c, answers, d.Weight)
	t.lose(c, meters[1], d, answers[1], decided)
}

// move counts what goes from the PoPs of one answer to those of another: what both have stays.
func (t *tally) move(c *comparison, answers [2]answer, weight float64) {
	from, to := surplus(c, answers[0], answers[1]), surplus(c, answers[1], answers[0])
	for _, a := range from {
		for _, b := range to {
			// In proportion, so that all of both sides is accounted for.
			moved := weight * a.part * b.part / total(to)
			t.moves[[2]int{a.pop, b.pop}] += moved
			t.moved += moved
		}
	}
}

type part struct {
	pop  int
	part float64
}

// surplus is what answer a has of its PoPs more than answer b has.
func surplus(c *comparison, a, b answer) []part {
	share := func(x answer, pop int) float64 {
		if x.n == 0 {
			return map[bool]float64{true: 1}[pop == len(c.pops)-1]
		}
		for _, p := range x.pops[:x.n] {
			if p == pop {
				return 1 / float64(x.n)
			}
		}
		return 0
	}
	pops := a.pops[:a.n]
	if a.n == 0 {
		pops = []int{len(c.pops) - 1}
	}
	var more []part
	for _, pop := range pops {
		if extra := share(a, pop) - share(b, pop); extra > 1e-12 {
			more = append(more, part{pop, extra})
		}
	}
	return more
}

func total(parts []part) float64 {
	var sum float64
	for _, p := range parts {
		sum += p.part
	}
	return sum
}

// lose counts what the loss of each PoP of a client's answer does.
func (t *tally) lose(c *comparison, m *router.Meter, d Demand, a answer, decided router.Answer) {
	for _, choice := range decided.Choices[:decided.N] {
		if c.views[1].Table.IsVIP(choice) {
			continue // where routing carries its clients then, nobody knows
		}
		l := &t.losses[choice]
		if l.rtts == nil {
			l.loads, l.rtts = make([]float64, len(c.pops)), new(histogram)
		}
		then, _ := c.ask(1, c.lost[choice], d.Client, m)
		part := d.Weight / float64(a.n)
		l.moved += part
		for j := range a.n {
			l.loads[a.pops[j]] -= part
			l.rtts.add(a.ms[j], -part)
		}
		if then.n == 0 {
			l.unserved += part
		}
		part = d.Weight / float64(max(then.n, 1))
		for j := range then.n {
			l.loads[then.pops[j]] += part
			l.rtts.add(then.ms[j], part)
		}
	}
}

// merge adds what another worker has counted.
func (t *tally) merge(o *tally) {
	t.weight, t.moved = t.weight+o.weight, t.moved+o.moved
	for pair, weight := range o.moves {
		t.moves[pair] += weight
	}
	for country, by := range o.countries {
		mine := t.countries[country]
		if mine == nil {
			mine = new([2]histogram)
			t.countries[country] = mine
		}
		mine[0].merge(&by[0])
		mine[1].merge(&by[1])
	}
	for i := range 2 {
		t.unserved[i] += o.unserved[i]
		t.world[i].merge(&o.world[i])
		for pop, load := range o.loads[i] {
			t.loads[i][pop] += load
		}
	}
	for i := range t.losses {
		mine, other := &t.losses[i], &o.losses[i]
		if other.rtts == nil {
			continue
		}
		if mine.rtts == nil {
			*mine = *other
			continue
		}
		mine.moved, mine.unserved = mine.moved+other.moved, mine.unserved+other.unserved
		mine.rtts.merge(other.rtts)
		for pop, load := range other.loads {
			mine.loads[pop] += load
		}
	}
}

// report makes the figures of the counts.
func (t *tally) report(c *comparison) *Report {
	r := &Report{
		Weight: t.weight, Moved: t.moved, Unserved: t.unserved, World: rttsOf(&t.world),
		Countries: map[string]RTTs{}, PoPs: map[string]Load{}, Losses: map[string]Loss{},
	}
	for pair, weight := range t.moves {
		r.Moves = append(r.Moves, Move{c.pops[pair[0]], c.pops[pair[1]], weight})
	}
	slices.SortFunc(r.Moves, func(a, b Move) int {
		return cmp.Or(-cmp.Compare(a.Weight, b.Weight), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	for _, country := range slices.Sorted(maps.Keys(t.countries)) {
		r.Countries[country] = rttsOf(t.countries[country])
	}
	capacity := make([]float64, len(c.pops))
	for n := range c.lost {
		name, pop := c.views[1].Table.PoP(router.Choice(n))
		capacity[c.names[name]] = float64(pop.CapacityRPS)
	}
	for number, name := range c.pops[:len(c.pops)-1] {
		r.PoPs[name] = Load{t.loads[0][number], t.loads[1][number], capacity[number]}
	}
	for n, l := range t.losses {
		if l.rtts == nil {
			continue
		}
		name, _ := c.views[1].Table.PoP(router.Choice(n))
		r.Losses[name] = t.loss(c, &l, capacity)
	}
	return r
}

func (t *tally) loss(c *comparison, l *loss, capacity []float64) Loss {
	l.rtts.merge(&t.world[1])
	loss := Loss{Moved: l.moved, Unserved: l.unserved, P50: l.rtts.quantile(0.5), P95: l.rtts.quantile(0.95), P99: l.rtts.quantile(0.99)}
	for number, most := range capacity {
		if most == 0 {
			continue
		}
		load := (t.loads[1][number] + l.loads[number]) / most
		if loss.Worst = max(loss.Worst, load); load > 1+1e-9 {
			loss.Overloaded = append(loss.Overloaded, c.pops[number])
		}
	}
	slices.Sort(loss.Overloaded)
	return loss
}

func rttsOf(h *[2]histogram) RTTs {
	r := RTTs{Weight: h[1].weight()}
	for i := range h {
		r.P50[i], r.P95[i], r.P99[i] = h[i].quantile(0.5), h[i].quantile(0.95), h[i].quantile(0.99)
	}
	return r
}

// histogram counts weight by round-trip time.
type histogram [bins]float64

// A bin has a quarter of a millisecond; the last one has all from there on.
const (
	binMS = 0.25
	bins  = 2400
)

func (h *histogram) add(ms, weight float64) { h[min(int(ms/binMS), bins-1)] += weight }

func (h *histogram) merge(o *histogram) {
	for i, weight := range o {
		h[i] += weight
	}
}

func (h *histogram) weight() float64 {
	var sum float64
	for _, weight := range h {
		sum += weight
	}
	return sum
}

// quantile returns the middle of the bin in which a part of the weight is reached, 0 of nothing.
func (h *histogram) quantile(q float64) float64 {
	wanted, sum := h.weight()*q, 0.0
	for i, weight := range h {
		if sum += weight; sum > 0 && sum >= wanted*(1-1e-12) {
			return math.Round((float64(i)+0.5)*binMS*1000) / 1000
		}
	}
	return 0
}
