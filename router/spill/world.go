package spill

import (
	"cmp"
	"maps"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// World is what shares are computed for: PoPs that may be answered, and the demand of clients. It must not change afterwards, and one plan is made for
// it at a time.
type World struct {
	PoPs  []PoP // by name
	Cells []Cell
	Away  []string // PoPs that are not among them for now, by name in order, see router.State.Away

	groups []group
	total  float64

	work, most int // steps of the plan that is being made, and how many it may take; 0 for any
}

// PoP is one that may be answered.
type PoP struct {
	Name        string
	CapacityRPS float64 // what it can do, see Memory; 0 where that is not known, which stands for any load
	Pinned      bool    // an operator says what share it takes: shares are not for it
}

// Cell is demand that ranks PoPs alike.
type Cell struct {
	Weight  float64   // requests a second; 0 or more
	Leading Leading   // the first choices of its class, which need not be among the PoPs of the world
	Hops    []Hop     // the PoPs of the world that it may be sent to, best first; at least one
	Answers int       // how many PoPs an answer names, to each of which about one part of the weight goes; 0 stands for 1
	Fixed   bool      // shares are not for it: it is answered a VIP, or is of services that do not spill
	crowd   int       // of the population that the world is of
	Draws   []float64 // of each hop, in 0..1, for a cell that cannot be divided, such as a resolver's address: it is accepted where its draw is below the share
}

// Hop is a PoP with the round-trip time to it.
type Hop struct {
	PoP   int // index in World.PoPs
	MS    float64
	Limit float64 // of the cell that the PoP takes at most, whatever its share; 0 stands for 1
}

func (h Hop) limit() float64 {
	if h.Limit == 0 {
		return 1
	}
	return h.Limit
}

// Leading names a group of cells by their first four choices; those that there are not are empty. Shares are by group and PoP.
type Leading = router.Leading

// group is the cells that have their first choices in common.
type group struct {
	leading Leading
	fixed   bool // shares are not for it
	cells   []int
	weight  float64
	ms      []float64 // of each PoP: the mean over the cells; +Inf for one that a cell has not
	rank    []float64 // of each PoP: the mean place in the cells' orders
	near    []int     // the nearest PoPs
}

// index finds the groups of the cells.
func (w *World) index() {
	if w.groups != nil {
		return
	}
	type kind struct {
		leading Leading
		fixed   bool
	}
	numbers := map[kind]int{}
	for _, c := range w.Cells {
		numbers[kind{c.Leading, c.Fixed}] = 0
	}
	kinds := slices.SortedFunc(maps.Keys(numbers), func(a, b kind) int {
		if order := a.leading.Compare(b.leading); order != 0 || a.fixed == b.fixed {
			return order
		}
		return map[bool]int{false: -1, true: 1}[a.fixed]
	})
	w.groups = make([]group, len(kinds))
	for i, k := range kinds {
		numbers[k] = i
		w.groups[i] = group{leading: k.leading, fixed: k.fixed, ms: make([]float64, len(w.PoPs)), rank: make([]float64, len(w.PoPs))}
	}
	for i, c := range w.Cells {
		g := numbers[kind{c.Leading, c.Fixed}]
		w.groups[g].cells = append(w.groups[g].cells, i)
		w.groups[g].weight += c.Weight
		w.total += c.Weight
	}
	for i := range w.groups {
		w.groups[i].measure(w)
	}
}

// measure finds the means of a group.
func (g *group) measure(w *World) {
	seen, all := make([]int, len(w.PoPs)), 0.0
	for _, c := range g.cells {
		cell := &w.Cells[c]
		weight := cell.Weight + 1e-9 // where nobody asks, all count alike
		all += weight
		for rank, h := range cell.Hops {
			g.ms[h.PoP] += weight * h.MS
			g.rank[h.PoP] += weight * float64(rank)
			seen[h.PoP]++
		}
	}
	for p := range g.ms {
		g.ms[p], g.rank[p] = g.ms[p]/all, g.rank[p]/all
		if seen[p] < len(g.cells) {
			g.ms[p] = inf
		}
		g.near = append(g.near, p)
	}
	slices.SortStableFunc(g.near, func(a, b int) int { return cmp.Compare(g.ms[a], g.ms[b]) })
	g.near = slices.Clone(g.near[:min(len(g.near), mended)])
}

// home is the nearest PoP that shares have a say in; all of them may be pinned.
func (g *group) home(w *World) int {
	for _, p := range g.near {
		if !w.PoPs[p].Pinned {
			return p
		}
	}
	return g.near[0]
}

// mended is how many of the nearest PoPs of a group are tried when what shares cannot do exactly is mended.
const mended = 12
