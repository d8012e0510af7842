package router

import (
	"cmp"
	"maps"
	"slices"
)

// Leading are the first four PoPs of a class of clients, in their order; where there are fewer, the rest is empty. Spill is by them: clients who
// have them in common are so near to each other that it matters little which of them are sent elsewhere.
type Leading [4]string

// Compare orders by the first name, then by the second, and so on.
func (l Leading) Compare(o Leading) int { return slices.CompareFunc(l[:], o[:], cmp.Compare[string]) }

// Spill is what share PoPs take of clients. Who is taken by no PoP is sent to the first. The zero Spill lets every PoP take all. It must not be
// changed once a state is made of it.
type Spill struct {
	Takes map[Leading]Takes
	Lost  map[string]map[Leading]Takes // by PoP: what counts instead for those that it names, while the PoP is lost
}

// Takes are shares by PoP, in 0..1. Who is not named takes all.
type Takes map[string]float64

// without returns what counts while some PoPs are lost, or come back, in order of their names. Where several of them name the same clients, the larger
// shares count. A PoP that comes back takes of what it meets no more than while all is well.
func (s Spill) without(lost []string) map[Leading]Takes {
	takes, own := s.Takes, map[Leading]bool{}
	for _, pop := range lost {
		for leading, instead := range s.Lost[pop] {
			if len(own) == 0 {
				takes = maps.Clone(takes)
				if takes == nil {
					takes = map[Leading]Takes{}
				}
			}
			merged := maps.Clone(instead)
			delete(merged, pop)
			if share, limited := s.Takes[leading][pop]; limited {
				merged[pop] = share
			}
			if own[leading] {
				merged = larger(merged, takes[leading])
			}
			takes[leading], own[leading] = merged, true
		}
	}
	return takes
}

// larger returns the larger share of each PoP.
func larger(a, b Takes) Takes {
	most := Takes{}
	for pop, share := range a {
		if other, limited := b[pop]; limited {
			most[pop] = max(share, other)
		}
	}
	return most
}

// turn is what PoPs take of the clients of some classes: those whose first PoP is known, and that have these behind it.
type turn struct {
	rest  [len(Leading{}) - 1]Choice // noChoice where there are fewer
	takes []taken
}

// taken is a PoP that does not take all.
type taken struct {
	choice Choice
	share  float64
	draws  uint64
}

// turnsOf resolves the names of shares, by first PoP; nil when all PoPs take all. It marks PoPs that do not: reserved, or shared if that concerns clients
// whose first PoP they are.
// What operators have pinned counts alone.
func (s *State) turnsOf(t *Table, takes map[Leading]Takes, mark func(Choice, standing)) [][]turn {
	if len(takes) == 0 {
		return nil
	}
	numbers := make(map[string]Choice, t.popCount)
	for c, pop := range t.pops[:t.popCount] {
		numbers[pop.name] = Choice(c)
	}
	number := func(name string) (Choice, bool) {
		if name == "" {
			return noChoice, true
		}
		c, ok := numbers[name]
		return c, ok
	}
	turns := make([][]turn, t.popCount)
	for leading, shares := range takes {
		first, a := numbers[leading[0]]
		var one turn
		for i, name := range leading[1:] {
			var known bool
			one.rest[i], known = number(name)
			a = a && known
		}
		if !a {
			continue // of another table; nobody has them
		}
		for pop, share := range shares {
			if c, known := numbers[pop]; known && share < 1 && s.decided.PoP(pop).Pin == nil {
				one.takes = append(one.takes, taken{c, max(share, 0), drawsOf(share)})
				mark(c, map[bool]standing{false: reserved, true: shared}[c == first])
			}
		}
		if len(one.takes) > 0 {
			turns[first] = append(turns[first], one)
		}
	}
	return turns
}

// share returns what a choice takes of the clients of this question's class, as draws and in 0..1.
func (q *question) share(c Choice) (uint64, float64) {
	draws, share := q.state.share[c], q.state.shares[c]
	for _, one := range q.turned() {
		if one.choice == c && one.draws < draws {
			return one.draws, one.share
		}
	}
	return draws, share
}

// turned returns what the shares of this question's class are, besides those of all classes.
func (q *question) turned() []taken {
	k := q.class
	if q.state.turns == nil || k.n == 0 || q.service.Steering.Spill != nil && q.service.Steering.Spill.Off {
		return nil
	}
	leading := k.first[:k.n]
	if q.table.IsVIP(leading[0]) {
		leading = leading[1:]
	}
	if len(leading) == 0 || len(q.state.turns[leading[0]]) == 0 {
		return nil
	}
	rest := [...]Choice{noChoice, noChoice, noChoice}
	q.depth = int(k.n) - len(leading) + len(rest) // so many leading choices after the first one make a difference
	copy(rest[:], leading[1:])
	for i := range q.state.turns[leading[0]] {
		if one := &q.state.turns[leading[0]][i]; one.rest == rest {
			return one.takes
		}
	}
	return nil
}
