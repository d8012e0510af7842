package health

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// Vantage is a node that looks at targets.
type Vantage struct {
	Name   string // as nodes are named, such as pop:sin1
	Region string // the continent's code; empty where it is not known
	Looks  []Kind // at what kinds of target; none for all
}

const (
	// RegionQuorum is how many vantages of a region a verdict of its own takes.
	RegionQuorum = 3
	// Looking is how many vantages look at a target, where there are as many: more, if so many regions have a verdict of their own.
	Looking = 7
	// Pace is the time between two probes of a target, by all vantages together, while nobody suspects it.
	Pace = time.Second
	// BurstPause is the time between two bursts of probes of a target, at least, so that somebody who sees ghosts makes no storm.
	BurstPause = 10 * time.Second
)

// Assign returns the vantages that look at a target, in the order of their turns: by rendezvous hashing, three of each region that has three, and
// seven in all at least. A target does not look at itself. When a vantage comes or goes, no turns change but its own and its neighbours'. The
// result does not depend on the order of the vantages. It takes time in proportion to their number.
func Assign(target Target, vantages []Vantage) []Vantage {
	type scored struct {
		Vantage
		score uint64
	}
	all := make([]scored, 0, len(vantages))
	for _, v := range vantages {
		if self, ok := selfOf(v.Name); (!ok || self != target) && (len(v.Looks) == 0 || slices.Contains(v.Looks, target.Kind)) {
			all = append(all, scored{v, hash(target.String(), v.Name)})
		}
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.Name, b.Name)) })
	count := map[string]int{}
	for _, v := range all {
		count[v.Region]++
	}
	taken := make([]bool, len(all))
	byRegion, n := map[string][]Vantage{}, 0
	take := func(i int) {
		taken[i] = true
		byRegion[all[i].Region] = append(byRegion[all[i].Region], all[i].Vantage)
		n++
	}
	for i, v := range all {
		if v.Region != "" && count[v.Region] >= RegionQuorum && len(byRegion[v.Region]) < RegionQuorum {
			take(i)
		}
	}
	for i := range all {
		if n >= Looking {
			break
		}
		if !taken[i] {
			take(i)
		}
	}
	var regions []string // of the vantages, the best first, so that turns go around the world
	for i, v := range all {
		if taken[i] && !slices.Contains(regions, v.Region) {
			regions = append(regions, v.Region)
		}
	}
	turns := make([]Vantage, 0, n)
	for round := 0; len(turns) < n; round++ {
		for _, region := range regions {
			if round < len(byRegion[region]) {
				turns = append(turns, byRegion[region][round])
			}
		}
	}
	return turns
}

// Turn returns the turn of a vantage among those that look at a target, and how many there are; false when it is none of them.
func Turn(vantage string, turns []Vantage) (turn, of int, ok bool) {
	turn = slices.IndexFunc(turns, func(v Vantage) bool { return v.Name == vantage })
	return turn, len(turns), turn >= 0
}

// Next returns when a vantage, whose turn is one of several, is to look at a target next after some time, by its wall clock. Vantages whose clocks
// agree look one after the other; where they do not agree, all look as often.
func Next(target Target, turn, of int, after time.Time) time.Time {
	phase := int64(hash(target.String(), "") % uint64(Pace))
	slot := (after.UnixNano()-phase)/int64(Pace) + 1
	slot += (int64(turn) - slot%int64(of) + int64(of)) % int64(of)
	return after.Add(time.Duration(slot*int64(Pace) + phase - after.UnixNano()))
}

// hash is alike on all machines.
func hash(a, b string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(a))
	h.Write([]byte{0})
	h.Write([]byte(b))
	x := h.Sum64() // whose high bits depend too little on the last octets
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
