package spill

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/isochrone/isochrone/router"
)

// Leader is what a leader remembers from one plan to the next. It is not safe for concurrent use. The zero Leader is ready, and careful: it knows
// nothing of what was planned before it.
type Leader struct {
	Memory Memory    // of what PoPs can do
	Moved  time.Time // when clients were moved last

	population *Population
	of         []Client // the clients of the population
	loads      map[string]float64
	at         time.Time          // of the last plan
	past       []past             // shares that clients may follow still, in order of time
	wrote      time.Time          // when there were other shares last
	besides    map[string]float64 // by PoP: what it gets that cannot be explained, of late
	factors    map[string]float64 // by first choice of classes: how much more clients ask for than the population says
}

// past is shares since a time.
type past struct {
	revision int64
	since    time.Time
	spill    router.Spill
}

// Client stands for some of the world's clients.
type Client struct {
	Client netip.Prefix
	Weight float64
}

// Told is what a leader is told for a plan.
type Told struct {
	Now      time.Time
	View     *router.View
	Clients  []Client        // a sample of the world's; the same slice as before, unless they are others
	Loads    map[string]Load // of the PoPs that tell
	InForce  router.Spill    // as it stands in the record,
	Revision int64           // which tells records apart
	TTL      time.Duration   // of answers: how long clients follow shares of before
	Options  Options
}

// Outcome is what a leader has come to.
type Outcome struct {
	Spill   router.Spill // to be in force
	Changed bool         // it is another than that
	Report  Report
	PoPs    []PoPOutcome // those of the table, by name
	Demand  float64      // requests a second, of all
}

// PoPOutcome is what a plan says of a PoP.
type PoPOutcome struct {
	Name        string
	LoadRPS     float64 // as measured, of late
	Known       bool    // it is
	CapacityRPS float64 // 0 for not known
	WantedRPS   float64 // by the shares that are to be in force,
	BeforeRPS   float64 // and by those that are
	Away        bool    // nothing is planned for it now
}

const (
	spillRound  = 3 * time.Second  // for each of which reckoning goes a part of the way:
	believed    = 0.1              // this one
	offsets     = time.Minute      // over which is forgotten what could not be explained
	lag         = 12 * time.Second // at most, from a change of what clients do to when it shows in loads, as they are smoothed
	smoothing   = 5 * time.Second  // of loads
	lossesEvery = 30 * time.Second // how often shares are replaced for the sake of losses alone, at the most
	mostClients = 20_000           // in the crowds of all services together
	ramp        = 0.3              // of its room that one plan fills at most of a PoP
	leastLoad   = 1e-3             // of all capacity: an idle world is planned for as if it were so busy
)

// Next makes the next plan, every few seconds. Equal calls in an equal order give equal plans.
func (l *Leader) Next(t Told) Outcome {
	passed := time.Duration(0)
	if first := l.at.IsZero(); first {
		l.wrote = t.Now
		if l.Moved.IsZero() {
			l.Moved = t.Now
		}
	} else {
		passed = t.Now.Sub(l.at)
	}
	l.at = t.Now
	l.follow(t)
	l.smooth(t.Loads, passed)
	l.populate(t)
	capacities := l.capacities(t, passed)
	o := Outcome{Spill: t.InForce}
	weights, besides, known := l.demand(t, capacities, passed)
	if !known {
		o.PoPs = l.outcomes(t, capacities, nil, nil)
		return o
	}
	t.Options.Ramp = ramp
	t.Options.Still = t.Now.Sub(l.Moved) < t.TTL+lag
	away, returning := t.View.State.Away(t.View.Table), t.View.State.Returning(t.View.Table)
	world := func(away []string) *World {
		w := l.population.World(t.View, capacities, away, weights)
		w.besides(besides)
		return w
	}
	now := world(away)
	next, report := Plan(now, t.InForce, t.Options)
	if len(returning) > 0 {
		back := world(slices.DeleteFunc(slices.Clone(away), func(name string) bool { _, is := slices.BinarySearch(returning, name); return is }))
		back.unlimited(returning)
		next = l.whenBack(t, now, back, returning, next, &report)
	}
	if o.Report, o.Demand = report, now.total; report.Why != "" && (report.Why != "loss" || t.Now.Sub(l.wrote) >= lossesEvery) {
		o.Spill, o.Changed, l.wrote = next, true, t.Now
		if report.Moved > 0 {
			l.Moved = t.Now
		}
	} else {
		o.Report.Why = ""
	}
	o.PoPs = l.outcomes(t, capacities, now, &report)
	return o
}

// whenBack plans for the time when PoPs that come back get all their clients: then no share of the kind that count while a PoP is lost does.
// Those that count until then are kept as such.
func (l *Leader) whenBack(t Told, now, back *World, returning []string, next router.Spill, report *Report) router.Spill {
	before := router.Spill{Takes: t.InForce.InForce(back.Away), Lost: t.InForce.Lost}
	if report.Why == "loss" {
		report.Why = ""
	}
	options := t.Options
	options.Still = true
	all, later := Plan(back, before, options)
	if later.Why == "" && report.Why == "" {
		return next
	}
	if later.Why == "" {
		all = before
	}
	present := next.Takes
	if report.Why == "" {
		present = t.InForce.InForce(now.Away)
	}
	all.Lost = maps.Clone(all.Lost)
	if all.Lost == nil {
		all.Lost = map[string]map[Leading]router.Takes{}
	}
	for _, pop := range returning {
		instead := map[Leading]router.Takes{}
		for leading := range allKeys(present, all.Takes) {
			if !maps.Equal(present[leading], all.Takes[leading]) {
				instead[leading] = present[leading]
				if instead[leading] == nil {
					instead[leading] = router.Takes{}
				}
			}
		}
		all.Lost[pop] = instead
	}
	if report.Why == "" {
		report.Why = later.Why
	}
	return all
}

// unlimited lets PoPs, by name in order, take all their clients, whatever they take now.
func (w *World) unlimited(names []string) {
	for i := range w.Cells {
		for j := range w.Cells[i].Hops {
			if _, is := slices.BinarySearch(names, w.PoPs[w.Cells[i].Hops[j].PoP].Name); is {
				w.Cells[i].Hops[j].Limit = 0
			}
		}
	}
}

func allKeys(a, b map[Leading]router.Takes) map[Leading]bool {
	keys := make(map[Leading]bool, len(a)+len(b))
	for leading := range a {
		keys[leading] = true
	}
	for leading := range b {
		keys[leading] = true
	}
	return keys
}

// follow notes which shares clients may follow.
func (l *Leader) follow(t Told) {
	if n := len(l.past); n == 0 {
		l.past = []past{{t.Revision, time.Time{}, t.InForce}}
	} else if l.past[n-1].revision != t.Revision {
		l.past = append(l.past, past{t.Revision, t.Now, t.InForce})
	}
	for len(l.past) > 1 && t.Now.Sub(l.past[1].since) >= t.TTL+lag {
		l.past = l.past[1:]
	}
}

// followed are the shares that clients follow, each by a part of them: answers expire one after the other, from some time after there are others on.
func (l *Leader) followed(t Told, away []string, after time.Duration) []followed {
	var by []followed
	rest := 1.0 // that follows these or later ones
	for i := len(l.past) - 1; i >= 0; i-- {
		part := rest
		if since := l.past[i].since; !since.IsZero() {
			reached := max(0, min((t.Now.Sub(since)-after).Seconds()/max(t.TTL.Seconds(), 1), 1))
			part = max(0, min(rest, reached-(1-rest)))
		}
		if part > 0 {
			by = append(by, followed{l.past[i].spill.InForce(away), part})
		}
		rest -= part
	}
	return by
}

// reckon finds what clients ask for, and returns what PoPs get besides: more than can be explained yet. It is slow to believe that clients
// ask for more or less, and quick to see that a PoP has too much.
func (l *Leader) reckon(w *World, measured []float64, t Told, away []string, passed time.Duration) (besides []float64) {
	m := newModel(w, l.followed(t, away, -t.TTL), l.followed(t, away, lag))
	if l.factors == nil {
		l.factors = map[string]float64{}
		sum, told := 0.0, 0.0
		for _, home := range m.homes {
			l.factors[home] = 1
		}
		for p, load := range l.loadsOf(m, w) {
			if !math.IsNaN(measured[p]) {
				sum, told = sum+load, told+measured[p]
			}
		}
		for _, home := range m.homes {
			l.factors[home] = max(told/max(sum, 1e-300), 1e-12)
		}
		m.reckon(measured, l.factors, 200, 1)
	} else {
		mean := 0.0
		for _, home := range m.homes {
			mean += l.factors[home] / float64(len(m.homes))
		}
		for _, home := range m.homes {
			if !(l.factors[home] > 0) {
				l.factors[home] = mean
			}
		}
		m.reckon(measured, l.factors, max(1, min(int(passed/spillRound), 200)), believed)
	}
	_, most := m.between(l.factors, len(w.PoPs))
	besides = make([]float64, len(w.PoPs))
	forget := math.Exp(-passed.Seconds() / offsets.Seconds())
	if l.besides == nil {
		l.besides = map[string]float64{}
	}
	for p, pop := range w.PoPs {
		more := l.besides[pop.Name] * forget
		if !math.IsNaN(measured[p]) {
			more = max(min(more, measured[p]), measured[p]-most[p])
		}
		l.besides[pop.Name], besides[p] = more, more
	}
	return besides
}

func (l *Leader) loadsOf(m *model, w *World) []float64 {
	_, most := m.between(l.factors, len(w.PoPs))
	return most
}

// smooth takes the loads that PoPs tell.
func (l *Leader) smooth(loads map[string]Load, passed time.Duration) {
	if l.loads == nil {
		l.loads = map[string]float64{}
	}
	keep := math.Exp(-passed.Seconds() / smoothing.Seconds())
	for pop, load := range loads {
		if before, known := l.loads[pop]; known {
			l.loads[pop] = keep*before + (1-keep)*load.RequestsRPS
		} else {
			l.loads[pop] = load.RequestsRPS
		}
	}
	maps.DeleteFunc(l.loads, func(pop string, _ float64) bool { _, tells := loads[pop]; return !tells })
}

// populate makes the crowds, when there is another table, or other clients are told of.
func (l *Leader) populate(t Told) {
	same := l.population != nil && l.population.table.DecidesAs(t.View.Table) && len(l.of) == len(t.Clients) && (len(l.of) == 0 || &l.of[0] == &t.Clients[0])
	if same {
		return
	}
	table := t.View.Table
	type kind struct {
		id    router.ServiceID
		count int
	}
	var kinds []kind
	seen := map[any]int{}
	for id := range table.Services() {
		alike := table.Alike(router.ServiceID(id), router.IPv4)
		at, known := seen[alike]
		if !known {
			at = len(kinds)
			seen[alike], kinds = at, append(kinds, kind{router.ServiceID(id), 0})
		}
		kinds[at].count++
	}
	var demand []Demand
	for _, k := range kinds {
		orders := 1 // PoPs that share clients make many
		for i := 0; i < len(t.Clients); i += len(t.Clients)/16 + 1 {
			orders = max(orders, len(table.Orders(k.id, router.IPv4, t.Clients[i].Client.Addr())))
		}
		each := max(1, min(len(t.Clients), max(mostClients/len(kinds)/orders, 500)))
		stride := (len(t.Clients) + each - 1) / each
		for i := 0; i < len(t.Clients); i += max(stride, 1) {
			c := t.Clients[i]
			for _, next := range t.Clients[i+1 : min(i+stride, len(t.Clients))] {
				c.Weight += next.Weight
			}
			demand = append(demand, Demand{Service: k.id, Client: c.Client, RPS: c.Weight * float64(k.count)})
		}
	}
	l.population, l.of = NewPopulation(table, demand), t.Clients
	l.factors = nil
}

// capacities are what PoPs can do.
func (l *Leader) capacities(t Told, passed time.Duration) map[string]float64 {
	if l.Memory == nil {
		l.Memory = Memory{}
	}
	capacities := map[string]float64{}
	for i := range t.View.Table.PoPs() {
		name, pop := t.View.Table.PoP(router.Choice(i))
		capacities[name] = l.Memory.Take(name, t.Loads[name], float64(pop.CapacityRPS), passed)
	}
	maps.DeleteFunc(l.Memory, func(pop string, _ float64) bool { _, there := capacities[pop]; return !there })
	return capacities
}

// demand reckons what the crowds ask for, from what PoPs tell, and what PoPs get besides, by name. It is not known when no PoP tells.
func (l *Leader) demand(t Told, capacities map[string]float64, passed time.Duration) (weights []float64, besides map[string]float64, known bool) {
	state := t.View.State
	returning := state.Returning(t.View.Table)
	gone := slices.DeleteFunc(state.Away(t.View.Table), func(name string) bool { _, is := slices.BinarySearch(returning, name); return is })
	w := l.population.World(t.View, capacities, gone, nil)
	if len(w.PoPs) == 0 || len(w.Cells) == 0 {
		return nil, nil, false
	}
	measured, all := make([]float64, len(w.PoPs)), 0.0
	for p, pop := range w.PoPs {
		if load, tells := l.loads[pop.Name]; tells {
			measured[p], known = load, true
		} else {
			measured[p] = math.NaN()
		}
		all += pop.CapacityRPS
	}
	if !known {
		return nil, nil, false
	}
	if all == 0 {
		all = 1 / leastLoad
	}
	more := l.reckon(w, measured, t, state.Away(t.View.Table), passed)
	floor := leastLoad * all / max(w.total, 1e-300)
	weights, besides = make([]float64, len(l.population.crowds)), map[string]float64{}
	for i, c := range l.population.crowds {
		weights[i] = c.weight * max(l.factors[c.leading[0]], floor)
	}
	for p, rps := range more {
		if rps > 0 {
			besides[w.PoPs[p].Name] = rps
		}
	}
	return weights, besides, true
}

// besides adds what PoPs get from clients who do not ask, or do not follow what they are told.
func (w *World) besides(rps map[string]float64) {
	if len(rps) == 0 {
		return
	}
	for p, pop := range w.PoPs {
		if more := rps[pop.Name]; more > 0 {
			w.Cells = append(w.Cells, Cell{Weight: more, Leading: Leading{pop.Name}, Hops: []Hop{{PoP: p}}, Fixed: true, crowd: -1})
		}
	}
	w.groups, w.total = nil, 0
	w.index()
}

// outcomes tells of all PoPs of the table; those of a world get loads.
func (l *Leader) outcomes(t Told, capacities map[string]float64, w *World, report *Report) []PoPOutcome {
	planned, before := map[string]float64{}, map[string]float64{}
	if w != nil {
		for p, pop := range w.PoPs {
			planned[pop.Name], before[pop.Name] = report.Loads[p], report.Before[p]
		}
	}
	var all []PoPOutcome
	for i := range t.View.Table.PoPs() {
		name, _ := t.View.Table.PoP(router.Choice(i))
		load, known := l.loads[name]
		wanted, there := planned[name]
		all = append(all, PoPOutcome{name, load, known, capacities[name], wanted, before[name], !there})
	}
	return all
}
