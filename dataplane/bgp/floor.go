package bgp

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Standing is what a node tells the others of itself and a prefix.
type Standing string

// The standings. Whoever has not left announces the prefix.
const (
	Stays Standing = "stays"
	Wants Standing = "wants" // wants to leave, though its service works
	Dead  Standing = "dead"  // wants to leave since its service does not work
	Left  Standing = "left"
)

// rank says who stays first, where some must: whoever wants to stay, then whoever works.
func (s Standing) rank() int {
	switch s {
	case Stays:
		return 0
	case Wants:
		return 1
	case Dead:
		return 2
	}
	return 3
}

// Other is what another node says of itself and a prefix.
type Other struct {
	Node     string
	Standing Standing
}

type floorVerdict struct {
	allowed bool
	reason  string // why not
}

// floor tells whether a node that stands as it says may leave, so that enough others go on announcing the prefix, though all may want to
// leave at once and hear of each other late.
//
// Whoever wants to leave tells so before it does. If enough others that stay come before it by name, it goes at once: they in turn
// cannot go at once for its sake. Otherwise it waits for so long that whoever has gone meanwhile is known to have gone, and whoever wants
// to go knows of it; from then on all sort those who announce in the same order, and only the first ones stay. A node that does not know
// what the others say stays.
func (m *Machine) floor(in Inputs, own Standing) floorVerdict {
	need := m.settings.MinAnnouncers
	if need <= 0 {
		return floorVerdict{allowed: true}
	}
	if !in.Known {
		return floorVerdict{reason: "held by the floor: it is not known who else announces " + m.prefix.String()}
	}
	all := []Other{{m.node, own}}
	before := 0 // by name, of those who stay
	for _, o := range in.Others[m.prefix] {
		if o.Standing.rank() > Dead.rank() || o.Node == m.node {
			continue
		}
		if all = append(all, o); o.Standing == Stays && o.Node < m.node {
			before++
		}
	}
	if before >= need {
		return floorVerdict{allowed: true}
	}
	if in.Now.Sub(later(m.stands, m.known)) < m.settings.Settle {
		return floorVerdict{reason: "waits until the others know of it"}
	}
	slices.SortFunc(all, func(a, b Other) int {
		return cmp.Or(cmp.Compare(a.Standing.rank(), b.Standing.rank()), cmp.Compare(a.Node, b.Node))
	})
	place := slices.IndexFunc(all, func(o Other) bool { return o.Node == m.node })
	if place >= need {
		return floorVerdict{allowed: true}
	}
	return floorVerdict{reason: fmt.Sprintf("held by the floor: of %d that announce %v, at least %d must", len(all), m.prefix, need)}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
