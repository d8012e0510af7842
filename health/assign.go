package health

import (
	"cmp"
	"slices"
	"strings"
)

// perRegion is how many vantages of a region probe a target, and the least that reach a verdict for the region.
const perRegion = 3

// Assign returns the vantages that probe a target, in the order of their turns: neighbours in it are of different regions where that can
// be. It is the same for equal sets of vantages. Each region with at least three vantages gives three; there are at least k in all, if
// there are so many, and an odd number. The target itself is left out. Few targets move when a vantage comes or goes (rendezvous hashing:
// Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998).
func Assign(t Target, vantages []Vantage, k int) []Vantage {
	ranked := make([]ranking, 0, len(vantages))
	self, seed := t.node(), hash(string(t.Kind), t.Name)
	for _, v := range vantages {
		if v.Name != self && v.sees(t.Kind) {
			ranked = append(ranked, ranking{v, mix(seed ^ hash(v.Name))})
		}
	}
	slices.SortFunc(ranked, func(a, b ranking) int {
		return cmp.Or(cmp.Compare(a.weight, b.weight), strings.Compare(a.Name, b.Name))
	})
	ranked = slices.CompactFunc(ranked, func(a, b ranking) bool { return a.Name == b.Name })
	return interleave(choose(ranked, k))
}

type ranking struct {
	Vantage
	weight uint64
}

// choose takes the first three of each region that has three, and then the first of the others up to the number that is wanted.
func choose(ranked []ranking, k int) []ranking {
	of := map[string]int{}
	for _, v := range ranked {
		of[v.Region]++
	}
	chosen, rest := []ranking{}, []ranking{}
	taken := map[string]int{}
	for _, v := range ranked {
		if v.Region != "" && of[v.Region] >= perRegion && taken[v.Region] < perRegion {
			taken[v.Region]++
			chosen = append(chosen, v)
		} else {
			rest = append(rest, v)
		}
	}
	want := max(k, len(chosen))
	want = min(want+1-want%2, len(ranked))
	if want%2 == 0 && want > 2 && want > len(chosen) { // there are no more, and the last one would only make ties; but two see more than one
		want--
	}
	if more := want - len(chosen); more > 0 {
		chosen = append(chosen, rest[:more]...)
	}
	return chosen
}

// interleave orders vantages so that each turn is taken by another region than the one before, as far as that goes: the region with the
// most turns left is next. The order of ranking decides between equals.
func interleave(chosen []ranking) []Vantage {
	slices.SortFunc(chosen, func(a, b ranking) int { return cmp.Compare(a.weight, b.weight) })
	left := map[string]int{}
	for _, v := range chosen {
		left[v.Region]++
	}
	turns := make([]Vantage, 0, len(chosen))
	for last := ""; len(chosen) > 0; {
		best := 0
		for i, v := range chosen {
			b := chosen[best]
			if i > 0 && (b.Region == last && v.Region != last || (v.Region != last) == (b.Region != last) && left[v.Region] > left[b.Region]) {
				best = i
			}
		}
		v := chosen[best].Vantage
		last = v.Region
		left[last]--
		turns = append(turns, v)
		chosen = slices.Delete(chosen, best, best+1)
	}
	return turns
}

// node returns the name of the node that is the target, which is no vantage of it: store.NodeName's.
func (t Target) node() string { return string(t.Kind) + ":" + t.Name }

// hash is FNV-1a over strings, with their ends. It spreads; it keeps nobody out.
func hash(all ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range all {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of splitmix64, so that neighbours are far apart.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
