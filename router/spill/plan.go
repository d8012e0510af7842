package spill

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// Options are how shares are chosen. The zero value stands for the defaults.
type Options struct {
	Fill    float64 // part of its capacity that a PoP is given while all is well; 0.95
	Return  float64 // clients return to a PoP when no more than this part of its capacity is used then; 0.85
	Gain    float64 // part of the mean round-trip time that is worth a change; 0.02
	MaxMove float64 // part of the demand that one plan moves at most, when no PoP has too much; 0.02
	Ramp    float64 // part of its room that one plan fills at most of a PoP, where that is enough; none for all
	Still   bool    // no client moves, unless a PoP has too much
	Work    int     // steps that a plan may take, of which the best so far counts then; about 600 million a second; none for 1,000 million
}

func (o Options) orDefaults() Options {
	for _, field := range []struct {
		value *float64
		usual float64
	}{{&o.Fill, 0.95}, {&o.Return, 0.85}, {&o.Gain, 0.02}, {&o.MaxMove, 0.02}} {
		if !(*field.value > 0) {
			*field.value = field.usual
		}
	}
	if o.Work <= 0 {
		o.Work = 1_000_000_000
	}
	return o
}

// near is how much longer than the optimum the mean round-trip time may be for fewer clients to move.
const near = 0.0025

// manyPaths is from how many groups times PoPs on fewer such ways are tried, since each takes long.
const manyPaths = 200_000

// Report tells what shares come to.
type Report struct {
	Why     string    // there are other shares than those in force: overload, gain, return, loss, or empty for none
	Loads   []float64 // requests a second, by PoP of the world,
	Before  []float64 // and by the shares in force
	MeanMS  float64   // round-trip time
	BestMS  float64   // the least at which no PoP has too much, if the groups could be divided among PoPs at will
	Moved   float64   // requests a second that go elsewhere than by the shares in force
	Over    float64   // requests a second that PoPs have above their capacity
	Without []Loss    // losses that would overload a PoP
}

// Loss is a PoP that would get too much when another one is lost.
type Loss struct {
	Lost, PoP         string
	LoadRPS, CanDoRPS float64
}

// Plan returns shares for a world, given those in force. While nothing is wrong with those, and others would gain little, they stay.
func Plan(w *World, inForce router.Spill, o Options) (router.Spill, Report) {
	o = o.orDefaults()
	w.index()
	w.work, w.most = 0, o.Work
	if len(w.PoPs) == 0 || !(w.total > 0) {
		return inForce, Report{Loads: make([]float64, len(w.PoPs)), Before: make([]float64, len(w.PoPs))}
	}
	p := planner{World: w, Options: o, before: newLedger(w, -1, w.rowsOf(inForce.InForce(w.Away)))}
	for g := range w.groups {
		p.flows = append(p.flows, p.before.flow(g))
	}
	p.hold()
	next, why := p.calm()
	if next == p.before {
		why = ""
	}
	spill := router.Spill{Takes: w.takesOf(next.rows), Lost: map[string]map[Leading]router.Takes{}}
	report := Report{Why: why, Loads: next.load, Before: p.before.load, MeanMS: next.ms(), BestMS: p.best, Moved: p.moved(next)}
	for i, pop := range w.PoPs {
		report.Over += over(next.load[i], orAny(pop.CapacityRPS))
	}
	changed := p.losses(next, inForce, &spill, &report)
	if report.Why == "" && changed {
		report.Why = "loss"
	}
	if report.Why == "" {
		return inForce, report
	}
	w.keep(&spill, inForce)
	return spill, report
}

func orAny(capacity float64) float64 {
	if capacity <= 0 {
		return inf
	}
	return capacity
}

type planner struct {
	*World
	Options
	before *ledger     // by the shares in force
	flows  [][]float64 // of it, by group
	best   float64
	given  []float64 // by PoP: what it gets whatever shares there are
	costly float64   // of that, in ms × requests a second
	free   []float64 // by group: what shares may send elsewhere
	pinned bool      // there are pinned PoPs
}

// hold finds what shares have no say in: clients of fixed groups, and those of pinned PoPs, by the shares in force.
func (p *planner) hold() {
	p.given, p.free = make([]float64, len(p.PoPs)), make([]float64, len(p.groups))
	for g := range p.groups {
		for i, weight := range p.flows[g] {
			p.pinned = p.pinned || p.PoPs[i].Pinned
			if p.groups[g].fixed || p.PoPs[i].Pinned {
				if p.given[i] += weight; weight > 0 {
					p.costly += weight * p.groups[g].ms[i]
				}
			} else {
				p.free[g] += weight
			}
		}
	}
}

// calm finds the shares while all is well.
func (p *planner) calm() (next *ledger, why string) {
	room := p.rooms(p.Fill, -1)
	best := p.target(room)
	if ramped := p.ramped(room); ramped != nil {
		if least := p.target(ramped); least.whole() && least.over <= best.over+1e-6*p.total {
			room, best = ramped, least
		}
	}
	least := best.total() + p.costly
	p.best = least / p.total
	// Somewhat more than a plan may give is borne, so that not each step of a rising demand makes a plan.
	borne := p.rooms((1+p.Fill)/2, -1)
	if excess := p.before.excess(borne); excess > 1e-6*p.total {
		if next := p.relieve(room, best); next.excess(borne) < 0.98*excess {
			return next, "overload"
		}
		return p.before, "" // whoever could be sent elsewhere is
	}
	if p.Still {
		return p.before, ""
	}
	calm := p.rooms(p.Return, -1)
	wanted := p.target(calm)
	home := true
	given := p.given
	for i, load := range wanted.load {
		home = home && load+given[i] <= calm[i]
	}
	for g, flow := range wanted.flow {
		home = home && (p.groups[g].fixed || flow[p.groups[g].home(p.World)] >= p.free[g]*(1-1e-9))
	}
	switch plain := !slices.ContainsFunc(p.before.rows, func(row []float64) bool { return row != nil }); {
	case home && plain:
		return p.before, ""
	case home:
		return p.approach(newLedger(p.World, -1, make([][]float64, len(p.groups))), borne), "return"
	case p.before.cost-least > p.Gain*p.before.cost:
		next := p.realise(room, func(room []float64) *transport { return p.target(room) }, best)
		if p.before.cost-next.cost > p.Gain/4*p.before.cost { // shares may not come nearer to the optimum
			return p.approach(next, borne), "gain"
		}
	}
	return p.before, ""
}

// ramped is how much of their rooms PoPs may be given by one plan; nil for all. What comes of shares is not just what they say.
func (p *planner) ramped(room []float64) []float64 {
	if p.Ramp <= 0 || p.Ramp >= 1 {
		return nil
	}
	ramped := slices.Clone(room)
	for i, load := range p.before.load {
		if room[i] < inf && load < room[i] {
			ramped[i] = load + p.Ramp*(room[i]-load)
		}
	}
	return ramped
}

// relieve finds shares by which no PoP has too much, at about the lowest round-trip time, and of those the ones that move the fewest.
func (p *planner) relieve(room []float64, best *transport) *ledger {
	limit := best.total() * (1 + near)
	worth, good := 1e4, best
	fits := func(worth float64) bool {
		t := p.targetNear(room, worth)
		if t.whole() && t.total() <= limit {
			good = t
			return true
		}
		return false
	}
	if !fits(worth) {
		low, high, tries := 0.0, worth, 8
		if len(p.groups)*len(p.PoPs) > manyPaths {
			tries = 3
		}
		for range tries {
			if p.spent(0.4) {
				break
			}
			middle := math.Sqrt(max(low, 1e-2) * high)
			if fits(middle) {
				low = middle
			} else {
				high = middle
			}
		}
		worth = low
	}
	return p.realise(room, func(room []float64) *transport { return p.targetNear(room, worth) }, good)
}

// approach goes towards other shares, as far as one plan may move clients and no PoP gets too much.
func (p *planner) approach(to *ledger, room []float64) *ledger {
	fits := func(l *ledger) bool {
		return p.moved(l) <= p.MaxMove*p.total && l.excess(room) <= 1e-6*p.total
	}
	if fits(to) {
		return to
	}
	low, high := 0.0, 1.0
	best := p.before
	for range 12 {
		middle := (low + high) / 2
		if l := p.between(to, middle); fits(l) {
			low, best = middle, l
		} else {
			high = middle
		}
	}
	return best
}

// between has shares between those in force and others.
func (p *planner) between(to *ledger, part float64) *ledger {
	rows := make([][]float64, len(p.groups))
	one := func(row []float64, i int) float64 {
		if row == nil {
			return 1
		}
		return row[i]
	}
	for g := range rows {
		from, to := p.before.rows[g], to.rows[g]
		if from == nil && to == nil {
			continue
		}
		rows[g] = make([]float64, len(p.PoPs))
		for i := range rows[g] {
			a, b := one(from, i), one(to, i)
			rows[g][i] = math.Round((a+part*(b-a))*steps) / steps
		}
	}
	return newLedger(p.World, -1, rows)
}

// moved is how much goes to other PoPs than by the shares in force.
func (p *planner) moved(l *ledger) float64 {
	sum := 0.0
	for g := range p.groups {
		if sameRow(l.rows[g], p.before.rows[g]) {
			continue
		}
		for i, weight := range l.flow(g) {
			sum += math.Abs(weight-p.flows[g][i]) / 2
		}
	}
	return sum
}

func sameRow(a, b []float64) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }

// losses finds the shares for when a PoP is lost, of the busiest first. Those in force stay if they do.
func (p *planner) losses(calm *ledger, inForce router.Spill, spill *router.Spill, report *Report) (changed bool) {
	flows, at := make([][]float64, len(p.groups)), make([][]int, len(p.PoPs)) // groups that bring something to a PoP
	for g := range flows {
		flows[g] = calm.flow(g)
		for i, weight := range flows[g] {
			if weight > 0 {
				at[i] = append(at[i], g)
			}
		}
	}
	order := make([]int, len(p.PoPs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(calm.load[b], calm.load[a]) })
	for _, lost := range order {
		if calm.load[lost] <= 0 {
			continue
		}
		name := p.PoPs[lost].Name
		room := p.rooms((1+p.Fill)/2, lost) // demand may have grown when it comes to that
		takes := inForce.Lost[name]
		after := p.afterwards(calm, takes, lost, at[lost])
		if after.excess(room) > 1e-6*p.total && !p.spent(1) {
			if other := p.afterLoss(calm, flows, lost, at[lost], room); other.excess(room) < after.excess(room)*0.9 {
				after, takes, changed = other, p.instead(calm.rows, other.rows, lost), true
			}
		}
		if len(takes) > 0 {
			spill.Lost[name] = takes
		}
		for i, to := range p.PoPs {
			if capacity := orAny(to.CapacityRPS); i != lost && after.load[i] > capacity*(1+1e-3) {
				report.Without = append(report.Without, Loss{name, to.Name, after.load[i], capacity})
			}
		}
	}
	slices.SortStableFunc(report.Without, func(a, b Loss) int { return cmp.Or(cmp.Compare(a.Lost, b.Lost), cmp.Compare(a.PoP, b.PoP)) })
	return changed
}

// afterwards is what PoPs get once one is lost, that some groups bring something to, by shares for that.
func (p *planner) afterwards(calm *ledger, takes map[Leading]router.Takes, lost int, at []int) *ledger {
	rows := p.rowsAfter(calm.rows, takes, lost)
	touched := slices.Clone(at)
	for g := range rows {
		if !sameRow(rows[g], calm.rows[g]) {
			touched = append(touched, g)
		}
	}
	slices.Sort(touched)
	return calm.after(lost, rows, slices.Compact(touched))
}

// rowsOf returns the rows of the groups.
func (w *World) rowsOf(takes map[Leading]router.Takes) [][]float64 {
	rows := make([][]float64, len(w.groups))
	for g := range rows {
		if !w.groups[g].fixed {
			rows[g] = w.rowOf(takes[w.groups[g].leading])
		}
	}
	return rows
}

func (w *World) rowOf(takes router.Takes) []float64 {
	var row []float64
	for p, pop := range w.PoPs {
		if share, limited := takes[pop.Name]; limited && share < 1 && !pop.Pinned {
			row = with(row, p, max(share, 0), len(w.PoPs))
		}
	}
	return row
}

// rowsAfter returns the rows of the groups as they are once a PoP is lost, see router.Spill.
func (w *World) rowsAfter(calm [][]float64, instead map[Leading]router.Takes, lost int) [][]float64 {
	rows := slices.Clone(calm)
	if len(instead) == 0 {
		return rows
	}
	for g := range rows {
		if takes, named := instead[w.groups[g].leading]; named && !w.groups[g].fixed {
			rows[g] = w.rowOf(takes)
		}
	}
	return rows
}

// takesOf returns rows by names.
func (w *World) takesOf(rows [][]float64) map[Leading]router.Takes {
	takes := map[Leading]router.Takes{}
	for g, row := range rows {
		if named := w.named(row, -1); len(named) > 0 && !w.groups[g].fixed {
			takes[w.groups[g].leading] = named
		}
	}
	return takes
}

func (w *World) named(row []float64, without int) router.Takes {
	takes := router.Takes{}
	for p, share := range row {
		if share < 1 && p != without && !w.PoPs[p].Pinned {
			takes[w.PoPs[p].Name] = share
		}
	}
	return takes
}

// instead returns the rows that are others once a PoP is lost.
func (w *World) instead(calm, after [][]float64, lost int) map[Leading]router.Takes {
	takes := map[Leading]router.Takes{}
	for g, row := range after {
		if sameRow(calm[g], row) {
			continue
		}
		a, b := w.named(calm[g], lost), w.named(row, lost)
		if !maps.Equal(a, b) && !w.groups[g].fixed {
			takes[w.groups[g].leading] = b
		}
	}
	return takes
}
