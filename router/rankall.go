package router

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// listed is how many candidates are put in order for a location: what a class lists, and as many as one prefix of the RTT map
// can move out of that.
const listed = ranked + maxMoved

// maxMoved is how many measurements of a prefix are taken into the order of its location; with more, all is ordered anew.
const maxMoved = 8

// chunk is how many locations a worker takes at a time.
const chunk = 16

// maxWorkers is bounded by the bits that tell them apart while they number classes by themselves.
const (
	maxWorkers = 16
	workerBits = 28
)

// rankAll makes the classes of all rankings, and their scopes. Locations are shared among workers; each numbers the classes that it
// finds, and the numbers are brought together in the end.
func (t *Table) rankAll(choices map[string]Choice, atOnce int) error {
	byLocation, first := t.groupByLocation()
	numbers := len(t.atlas.places)
	if t.origins != nil {
		numbers = len(t.origins)
	}
	variants := make([][]uint32, len(t.rankings)) // of each origin, for rankings with rules
	for i, r := range t.rankings {
		m := newMatcher(t, r, choices)
		if len(r.policy.Rules) > 0 {
			variants[i] = make([]uint32, numbers)
			for number := range variants[i] {
				variants[i][number] = m.variantOf(t.originOf(uint32(number)))
			}
		}
		r.uniform = !slices.ContainsFunc(r.variants, func(v *variant) bool { return v.count != len(r.candidates) })
	}
	classOf := make([][]uint32, len(t.rankings)) // of each origin
	for i := range classOf {
		classOf[i] = make([]uint32, numbers)
	}
	workers := make([]*ranker, atOnce)
	var (
		next    atomic.Int64
		running sync.WaitGroup
	)
	for number := range workers {
		w := newRanker(t, number, variants, classOf)
		workers[number] = w
		running.Go(func() {
			for {
				end := int(next.Add(chunk))
				begin := end - chunk
				if begin >= len(t.atlas.locations) {
					return
				}
				for location := begin; location < min(end, len(t.atlas.locations)); location++ {
					w.rank(uint32(location), byLocation[first[location]:first[location+1]])
				}
			}
		})
	}
	running.Wait()
	return t.assign(workers, classOf)
}

// groupByLocation lists the origins of each location, one location after the other.
func (t *Table) groupByLocation() (origins, first []uint32) {
	numbers := len(t.atlas.places)
	if t.origins != nil {
		numbers = len(t.origins)
	}
	first = make([]uint32, len(t.atlas.locations)+2)
	for number := range numbers {
		first[t.locationOf(uint32(number))+2]++
	}
	for i := 2; i < len(first); i++ {
		first[i] += first[i-1]
	}
	origins = make([]uint32, numbers)
	for number := range numbers {
		at := t.locationOf(uint32(number)) + 1
		origins[first[at]] = uint32(number)
		first[at]++
	}
	return origins, first
}

// assign numbers the classes of all workers together, and finds the scopes.
func (t *Table) assign(workers []*ranker, classOf [][]uint32) error {
	var (
		work    = make(chan func())
		running sync.WaitGroup
	)
	for range len(workers) {
		running.Go(func() {
			for do := range work {
				do()
			}
		})
	}
	defer running.Wait()
	defer close(work)
	var merged sync.WaitGroup
	for i, r := range t.rankings {
		merged.Add(1)
		work <- func() {
			defer merged.Done()
			r.merge(i, workers, classOf[i])
		}
	}
	merged.Wait()
	for _, r := range t.rankings {
		if len(r.classes) >= maxClasses {
			return fmt.Errorf("%w: clients have %d different rankings, at most %d can be compiled", ErrTooLarge, len(r.classes), maxClasses-1)
		}
	}
	var packed sync.WaitGroup
	for _, r := range t.rankings {
		packed.Add(2)
		work <- func() { defer packed.Done(); r.reach4 = r.reach(t.v4) }
		work <- func() { defer packed.Done(); r.reach6 = r.reach(t.v6) }
	}
	t.near = make([][]Choice, len(t.pops))
	for c := range t.near {
		if slices.ContainsFunc(t.rankings, func(r *ranking) bool { return r.begins(Choice(c)) }) {
			packed.Add(1)
			work <- func() { defer packed.Done(); t.near[c] = t.nearest(Choice(c)) }
		}
	}
	packed.Wait()
	return nil
}

// merge numbers the classes that workers have found of a ranking.
func (r *ranking) merge(ranking int, workers []*ranker, classOf []uint32) {
	r.classes = workers[0].classes[ranking] // whose numbers stay
	known := workers[0].known[ranking]
	renumbered := make([][]uint32, len(workers))
	for i, w := range workers {
		if i == 0 {
			continue
		}
		for _, k := range w.classes[ranking] {
			number, ok := known[k]
			if !ok {
				number = uint32(len(r.classes))
				known[k] = number
				r.classes = append(r.classes, k)
			}
			renumbered[i] = append(renumbered[i], number)
		}
	}
	r.briefs = make([]brief, len(classOf))
	for origin, number := range classOf {
		if worker := number >> workerBits; worker > 0 {
			number = renumbered[worker][number&(1<<workerBits-1)]
		}
		r.briefs[origin] = r.classes[number].brief(number)
	}
}

// begins reports whether c is the first of some class that does not list all of its choices.
func (r *ranking) begins(c Choice) bool {
	if len(r.candidates) <= ranked {
		return false
	}
	return slices.Contains(r.candidates, c)
}

// nearest orders all choices by the predicted round-trip time from the PoP of one.
func (t *Table) nearest(c Choice) []Choice {
	us, order := make([]uint32, len(t.pops)), make([]Choice, len(t.pops))
	t.targets.Microseconds(t.pops[c].Location, us)
	for i := range order {
		order[i] = Choice(i)
	}
	slices.SortStableFunc(order, func(a, b Choice) int { return int(us[a]) - int(us[b]) })
	return order
}

// ranker orders the candidates of all rankings for some locations.
type ranker struct {
	table    *Table
	number   uint32
	variants [][]uint32
	classOf  [][]uint32
	choices  []Choice // of the PoPs of the RTT map; noChoice for those that the topology has not

	classes [][]class // by ranking
	known   []map[class]uint32
	base    []uint32 // of the present location, by ranking: the class without rules and measurements, or none
	lists   [][]candidate
	us      []uint32 // from the present location to all choices
	own     []uint32 // likewise, with measurements
	moved   []candidate
}

const (
	none     = ^uint32(0)
	noChoice = ^Choice(0)
)

func newRanker(t *Table, number int, variants, classOf [][]uint32) *ranker {
	w := &ranker{
		table: t, number: uint32(number) << workerBits, variants: variants, classOf: classOf,
		classes: make([][]class, len(t.rankings)), base: make([]uint32, len(t.rankings)),
		us: make([]uint32, len(t.pops)), own: make([]uint32, len(t.pops)), moved: make([]candidate, 0, ranked),
	}
	room := ranked
	if t.rttMap.Len() > 0 {
		room = listed
	}
	for range t.rankings {
		w.known = append(w.known, map[class]uint32{})
		w.lists = append(w.lists, make([]candidate, 0, room))
	}
	if t.rttMap != nil {
		for _, name := range t.rttMap.PoPs() {
			i, known := slices.BinarySearchFunc(t.pops[:t.popCount], name, func(p tablePoP, name string) int {
				if p.name < name {
					return -1
				} else if p.name > name {
					return 1
				}
				return 0
			})
			if !known {
				i = int(noChoice)
			}
			w.choices = append(w.choices, Choice(i))
		}
	}
	return w
}

// rank makes the classes of a location's origins.
func (w *ranker) rank(location uint32, origins []uint32) {
	if len(origins) == 0 {
		return
	}
	t := w.table
	t.predict(location, w.us)
	for i := range w.base {
		w.base[i] = none
	}
	for _, number := range origins {
		o := t.originOf(number)
		var entries []rtt.Entry
		if o.measured != noPrefix {
			entries = t.rttMap.Entries(int(o.measured))
		}
		for i, r := range t.rankings {
			variant := uint32(0)
			if w.variants[i] != nil {
				variant = w.variants[i][number]
			}
			measured := entries
			if r.policy.Rank == topology.RankByPredicted {
				measured = nil
			}
			w.classOf[i][number] = w.number | w.classFor(i, location, variant, measured)
		}
	}
}

// classFor returns the number of the class of some clients at the present location.
func (w *ranker) classFor(i int, location, variant uint32, measured []rtt.Entry) uint32 {
	r := w.table.rankings[i]
	o := w.table.orderAt(r, location, variant)
	at := w.table.atlas.locations[location].region
	if variant == 0 && w.base[i] == none {
		w.lists[i] = o.top(w.us, w.lists[i])
		w.base[i] = w.intern(i, o.class(w.lists[i], 0, at))
	}
	switch {
	case variant == 0 && len(measured) == 0:
		return w.base[i]
	case variant == 0 && len(measured) <= maxMoved:
		return w.intern(i, o.class(w.move(&o, w.lists[i], measured), 0, at))
	}
	us := w.us
	if len(measured) > 0 {
		us = w.own
		copy(us, w.us)
		for _, e := range measured {
			if c := w.choices[e.PoP]; c != noChoice {
				us[c], _ = rtt.Merge(w.us[c], e)
			}
		}
	}
	var list [ranked]candidate
	return w.intern(i, o.class(o.top(us, list[:0]), variant, at))
}

// orderAt returns the order for a ranking's clients at a location.
func (t *Table) orderAt(r *ranking, location, variant uint32) order {
	s := &t.atlas.locations[location]
	return order{
		ranking: r, salts: t.pops, variant: r.variants[variant],
		failing:  r.policy.Rank == topology.RankByFailover || location == unknown,
		location: mix(uint64(int64(s.lat*1e4))<<32 ^ uint64(int64(s.lon*1e4))),
	}
}

// move puts measured choices where they belong in the order of their location.
func (w *ranker) move(o *order, list []candidate, measured []rtt.Entry) []candidate {
	moved := w.moved[:0]
	for _, e := range measured {
		c := w.choices[e.PoP]
		if c == noChoice || !o.member[c] {
			continue
		}
		us, _ := rtt.Merge(w.us[c], e)
		moved = o.insert(moved, candidate{o.key(c, us), c})
	}
	for _, x := range list {
		if !slices.ContainsFunc(measured, func(e rtt.Entry) bool { return w.choices[e.PoP] == x.c }) {
			moved = o.insert(moved, x)
		}
	}
	return moved
}

// intern returns the number of a class of a ranking.
func (w *ranker) intern(ranking int, k class) uint32 {
	number, known := w.known[ranking][k]
	if !known {
		number = uint32(len(w.classes[ranking]))
		w.classes[ranking] = append(w.classes[ranking], k)
		w.known[ranking][k] = number
	}
	return number
}
