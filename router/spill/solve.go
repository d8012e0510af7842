package spill

import (
	"math"
	"slices"
)

// rooms returns how much of a part of its capacity each PoP may be given when one is lost, or none (-1). Where all of them are too little for
// the demand, each gets the same part more.
func (w *World) rooms(fill float64, lost int) []float64 {
	room, all := make([]float64, len(w.PoPs)), 0.0
	for p, pop := range w.PoPs {
		switch {
		case p == lost:
		case pop.CapacityRPS <= 0:
			room[p] = inf
		default:
			room[p] = pop.CapacityRPS
		}
		all += room[p]
	}
	for p := range room {
		if room[p] > 0 {
			room[p] *= max(fill, w.total/all*(1+4*slack))
		}
	}
	return room
}

// slack is the part of its room that a PoP is not planned to use, since shares are not exact.
const slack = 5e-4

// target says where the groups would go best, if that could be said for each of them.
func (p *planner) target(room []float64) *transport {
	t := &transport{room: p.left(room)}
	for g := range p.groups {
		t.supply, t.cost = append(t.supply, p.free[g]), append(t.cost, p.costs(g))
	}
	p.solve(t, 0.6)
	return t
}

// solve solves a problem, with as much work as is left of a part of all.
func (w *World) solve(t *transport, part float64) {
	if w.most > 0 {
		t.most = max(int(part*float64(w.most))-w.work, 1)
	}
	t.solve()
	w.work += t.work
}

// spent reports whether a part of all work has been done.
func (w *World) spent(part float64) bool { return w.most > 0 && float64(w.work) > part*float64(w.most) }

// left is how much of some rooms shares may fill.
func (p *planner) left(room []float64) []float64 {
	left := slices.Clone(room)
	for i := range left {
		left[i] = max(left[i]*(1-slack)-p.given[i], 0)
	}
	return left
}

// costs are the round-trip times of a group to where shares can send it.
func (p *planner) costs(g int) []float64 {
	if !p.pinned {
		return p.groups[g].ms
	}
	cost := slices.Clone(p.groups[g].ms)
	for i, pop := range p.PoPs {
		if pop.Pinned {
			cost[i] = inf
		}
	}
	return cost
}

// targetNear is target, where what stays at the PoP that has it by earlier flows counts as so many milliseconds nearer. Its cost is that of
// the round-trip times alone.
func (p *planner) targetNear(room []float64, worth float64) *transport {
	pieces := &transport{room: p.left(room)}
	var of []int
	for g, flow := range p.flows {
		for i, weight := range flow {
			if weight <= 0 || p.groups[g].fixed || p.PoPs[i].Pinned {
				continue
			}
			cost := slices.Clone(p.costs(g))
			cost[i] -= worth
			of, pieces.supply, pieces.cost = append(of, g), append(pieces.supply, weight), append(pieces.cost, cost)
		}
	}
	p.solve(pieces, 0.6)
	t := &transport{room: pieces.room, load: pieces.load, over: pieces.over, cut: pieces.cut, flow: make([][]float64, len(p.groups))}
	for g := range t.flow {
		t.flow[g] = make([]float64, len(room))
		t.cost = append(t.cost, p.groups[g].ms)
	}
	for i, g := range of {
		for p, weight := range pieces.flow[i] {
			t.flow[g][p] += weight
		}
	}
	return t
}

// realise finds rows by which the groups come to flows that a plan finds for rooms, of which the first is known, and mends what shares cannot do
// exactly. Groups whose flow is what it was by earlier rows keep those.
func (p *planner) realise(room []float64, plan func(room []float64) *transport, first *transport) *ledger {
	var best *ledger
	p.approximate(room, func(room []float64) *ledger {
		t := first
		if best != nil {
			if t = plan(room); !t.whole() {
				return best
			}
		}
		rows, flow := make([][]float64, len(p.groups)), t.flow
		for g := range rows {
			if p.groups[g].fixed || p.alike(flow[g], p.flows[g], 1e-6*p.groups[g].weight) {
				rows[g] = p.before.rows[g]
				continue
			}
			rows[g] = p.fit(g, flow[g], -1)
		}
		return newLedger(p.World, -1, rows)
	}, &best)
	best.mend(room, func(int) bool { return true })
	if !slices.ContainsFunc(p.before.rows, func(row []float64) bool { return row != nil }) {
		best.polish(room, 3)
	}
	return best
}

// approximate tries again with less room for those PoPs that get too much by what shares come to, and keeps the best.
func (w *World) approximate(room []float64, try func(room []float64) *ledger, best **ledger) {
	given := slices.Clone(room)
	least := inf
	for range 6 {
		l := try(given)
		if excess := l.excess(room); excess < least {
			least, *best = excess, l
		}
		if least < w.enough() || w.spent(0.5) {
			return
		}
		for p, load := range l.load {
			given[p] = max(given[p]-1.2*over(load, room[p]), 0)
		}
	}
}

// enough is so little of an excess that nothing is done about it.
func (w *World) enough() float64 { return slack / 10 * w.total / float64(len(w.PoPs)) }

// alike reports whether two flows are about the same, pinned PoPs apart.
func (w *World) alike(a, b []float64, tolerance float64) bool {
	for i := range a {
		if math.Abs(a[i]-b[i]) > tolerance && !w.PoPs[i].Pinned {
			return false
		}
	}
	return true
}

// polish makes round-trip times shorter, by other shares of groups one after the other.
func (l *ledger) polish(room []float64, rounds int) {
	for range rounds {
		better := false
		for g := range l.w.groups {
			if l.rows[g] != nil && !l.w.spent(0.7) {
				better = l.improve(g, room) || better
			}
		}
		if !better {
			return
		}
	}
}

// afterLoss finds the rows of those groups that a PoP has clients of, for when it is lost: they go where there is room, and all others stay
// where they are.
func (p *planner) afterLoss(calm *ledger, flows [][]float64, lost int, at []int, room []float64) *ledger {
	var hit []int
	given := make([]float64, len(room)) // what of the lost PoP goes where it will
	for _, g := range at {
		switch {
		case p.groups[g].fixed:
			(&ledger{w: p.World, lost: lost}).add(g, nil, 1, given)
			for i, weight := range flows[g] {
				given[i] -= weight
			}
		case flows[g][lost] > eps*p.groups[g].weight:
			hit = append(hit, g)
		}
	}
	var best *ledger
	p.approximate(room, func(room []float64) *ledger {
		return calm.after(lost, p.without(lost, calm, flows, hit, room, given), at)
	}, &best)
	best.mend(room, func(g int) bool { _, found := slices.BinarySearch(hit, g); return found })
	best.mend(room, func(int) bool { return true }) // where that is not enough
	return best
}

// without finds rows that send the clients that some groups have at a lost PoP to where there is room.
func (p *planner) without(lost int, calm *ledger, flows [][]float64, hit []int, room, given []float64) [][]float64 {
	t := &transport{room: slices.Clone(room)}
	for i := range room {
		t.room[i] = max(room[i]*(1-slack)-calm.load[i]-given[i], 0)
	}
	t.room[lost] = 0
	for _, g := range hit {
		cost := slices.Clone(p.costs(g))
		cost[lost] = inf
		t.supply, t.cost = append(t.supply, flows[g][lost]), append(t.cost, cost)
	}
	p.solve(t, 1)
	rows := slices.Clone(calm.rows)
	for i, g := range hit {
		want := t.flow[i]
		for q, weight := range flows[g] {
			if q != lost {
				want[q] += weight
			}
		}
		rows[g] = p.fit(g, want, lost)
	}
	return rows
}

// fit finds shares by which a group comes to a flow, without one PoP or with all (-1); nil for all ones.
func (w *World) fit(g int, want []float64, without int) []float64 {
	group, row := &w.groups[g], make([]float64, len(want))
	if group.weight <= 0 {
		return nil
	}
	for p := range row {
		if want[p] > 1e-6*group.weight || w.PoPs[p].Pinned {
			row[p] = 1
		}
	}
	got := make([]float64, len(row))
	for range 100 {
		clear(got)
		left := 0.0
		for _, number := range group.cells {
			left += w.Cells[number].meet(row, without, got)
		}
		worst := left
		for p := range row {
			if row[p] > 0 && !w.PoPs[p].Pinned {
				worst = max(worst, math.Abs(got[p]-want[p]))
				row[p] = min(row[p]*want[p]/max(got[p], eps*group.weight), 1)
			}
		}
		if worst < 1e-5*group.weight {
			break
		}
	}
	w.close(group, row, without)
	return group.plain(w, row, without)
}

// close makes sure that somebody takes all who are left, since they go to the first PoP else: the farthest one that takes any does.
func (w *World) close(g *group, row []float64, without int) {
	left, last := 0.0, -1
	got := make([]float64, len(row))
	for _, number := range g.cells {
		left += w.Cells[number].meet(row, without, got)
	}
	for p := range row {
		if row[p] > 0 && !w.PoPs[p].Pinned && (last < 0 || g.rank[p] > g.rank[last]) {
			last = p
		}
	}
	if last >= 0 && left > 1e-6*g.weight {
		row[last] = 1
	}
}

// plain raises to one the shares that nobody meets, since everybody has been taken before, and rounds the others down; nil for all ones.
func (g *group) plain(w *World, row []float64, without int) []float64 {
	met := make([]bool, len(row))
	for _, number := range g.cells {
		for _, h := range w.Cells[number].Hops {
			if h.PoP == without {
				continue
			}
			met[h.PoP] = true
			if row[h.PoP] >= 1 {
				break
			}
		}
	}
	plain := true
	for p := range row {
		if !met[p] {
			row[p] = 1
		}
		row[p] = math.Floor(row[p]*steps+1e-6) / steps
		plain = plain && row[p] == 1
	}
	if plain {
		return nil
	}
	return row
}

// steps is how finely shares are told apart.
const steps = 10_000

// mend lowers what exceeds its room, as cheaply as single shares of single groups allow.
func (l *ledger) mend(room []float64, may func(g int) bool) {
	for range 6 {
		if l.excess(room) < l.w.enough() {
			return
		}
		better := false
		for g := range l.w.groups {
			if may(g) && l.w.groups[g].weight > 0 && !l.w.spent(0.9) && l.overloads(g, room) {
				better = l.improve(g, room) || better
			}
		}
		if !better {
			return
		}
	}
}

// overloads reports whether a group brings something to a PoP that has too much.
func (l *ledger) overloads(g int, room []float64) bool {
	if l.gets == nil {
		l.gets = make([]float64, len(l.load))
	}
	clear(l.gets)
	l.add(g, l.rows[g], 1, l.gets)
	for p, weight := range l.gets {
		if weight > 0 && l.load[p] > room[p]*(1+1e-9) {
			return true
		}
	}
	return false
}

// improve tries other shares of a group, and reports whether some were better.
func (l *ledger) improve(g int, room []float64) bool {
	if l.w.groups[g].fixed {
		return false
	}
	row, better := with(l.rows[g], 0, l.share(g, 0), len(room)), false // a copy
	for _, p := range l.w.groups[g].near {
		if p == l.lost || l.w.PoPs[p].Pinned {
			continue
		}
		was := row[p]
		least, at := -1e-9*l.w.total, was
		for _, share := range [...]float64{0, 1, was / 2, (1 + was) / 2, was * 0.9, was + 0.1*(1-was), was * 0.99, was + 0.01*(1-was)} {
			if share = math.Floor(share*steps) / steps; share != was {
				row[p] = share
				if d := l.try(g, row, room); d < least {
					least, at = d, share
				}
			}
		}
		if row[p] = at; at != was {
			l.try(g, row, room)
			l.commit(g, slices.Clone(row))
			better = true
		}
	}
	return better
}

// share is that of a PoP in a group's row.
func (l *ledger) share(g, p int) float64 {
	if row := l.rows[g]; row != nil {
		return row[p]
	}
	return 1
}

// with returns a copy of a row with another share.
func with(row []float64, p int, share float64, n int) []float64 {
	next := make([]float64, n)
	if row == nil {
		for q := range next {
			next[q] = 1
		}
	} else {
		copy(next, row)
	}
	next[p] = share
	return next
}
