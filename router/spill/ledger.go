package spill

import "slices"

// ledger has the loads of PoPs by rows of shares, in a world without one PoP or with all, and keeps them right when a group's row changes.
type ledger struct {
	w    *World
	lost int         // -1 for none
	rows [][]float64 // by group and PoP; a nil row stands for all ones
	load []float64   // by PoP
	cost float64     // ms × requests a second

	change []float64 // by PoP: of load, by the row that was tried last
	worth  float64   // of cost
	parts  parts
	gets   []float64 // by PoP: of a group, for a moment
}

func newLedger(w *World, lost int, rows [][]float64) *ledger {
	l := &ledger{w: w, lost: lost, rows: rows, load: make([]float64, len(w.PoPs)), change: make([]float64, len(w.PoPs))}
	for g := range w.groups {
		l.cost += l.add(g, rows[g], 1, l.load)
	}
	return l
}

// after returns the ledger without a PoP, and by other rows of some groups, of which are all that bring something to the PoP.
func (l *ledger) after(lost int, rows [][]float64, groups []int) *ledger {
	next := &ledger{w: l.w, lost: lost, rows: rows, load: slices.Clone(l.load), change: make([]float64, len(l.load)), cost: l.cost, parts: l.parts}
	for _, g := range groups {
		next.cost += l.add(g, l.rows[g], -1, next.load) + next.add(g, rows[g], 1, next.load)
	}
	next.load[lost] = 0
	return next
}

// add adds what a group brings to PoPs, times a sign, and returns what that costs.
func (l *ledger) add(g int, row []float64, sign float64, into []float64) (cost float64) {
	l.w.work += cellWork * len(l.w.groups[g].cells)
	for _, number := range l.w.groups[g].cells {
		c := &l.w.Cells[number]
		l.parts = c.spread(row, l.lost, l.parts[:0])
		for _, p := range l.parts {
			h := c.Hops[p.hop]
			into[h.PoP] += sign * p.weight
			cost += sign * p.weight * h.MS
		}
	}
	return cost
}

// flow returns what a group brings to PoPs.
func (l *ledger) flow(g int) []float64 {
	flow := make([]float64, len(l.load))
	l.add(g, l.rows[g], 1, flow)
	return flow
}

// cellWork is about how many steps it takes to find what PoPs get of a cell.
const cellWork = 30

// overMS is what one request a second weighs that is too much for a PoP, in milliseconds: more than any round-trip time.
const overMS = 1e6

// try returns by how much another row of a group raises the score, which is to be low.
func (l *ledger) try(g int, row, room []float64) float64 {
	clear(l.change)
	l.worth = l.add(g, l.rows[g], -1, l.change) + l.add(g, row, 1, l.change)
	excess := 0.0
	for p, change := range l.change {
		if change != 0 {
			excess += over(l.load[p]+change, room[p]) - over(l.load[p], room[p])
		}
	}
	return overMS*excess + l.worth
}

// commit gives a group the row that was tried last.
func (l *ledger) commit(g int, row []float64) {
	for p, change := range l.change {
		l.load[p] += change
	}
	l.cost += l.worth
	l.rows[g] = row
}

func over(load, room float64) float64 { return max(load-room, 0) }

// excess is how much all PoPs together have above their room.
func (l *ledger) excess(room []float64) float64 {
	sum := 0.0
	for p, load := range l.load {
		sum += over(load, room[p])
	}
	return sum
}

func (l *ledger) ms() float64 { return l.cost / max(l.w.total, 1e-300) }
