package spill

import (
	"maps"

	"github.com/isochrone/isochrone/router"
)

// keep gives PoPs that are away the shares that they had, so that they are not flooded when they come back. Of those clients who go elsewhere than
// before, and had another PoP first, they take none: they may not have met them.
func (w *World) keep(next *router.Spill, inForce router.Spill) {
	before := inForce.InForce(w.Away)
	for i := range w.groups {
		leading := w.groups[i].leading
		kept := router.Takes{}
		for _, pop := range w.Away {
			if share, limited := inForce.Takes[leading][pop]; limited {
				kept[pop] = share
			} else if pop != leading[0] && !sameRow(w.rowOf(next.Takes[leading]), w.rowOf(before[leading])) {
				kept[pop] = 0
			}
		}
		if len(kept) == 0 {
			continue
		}
		next.Takes[leading] = together(next.Takes[leading], kept)
		for pop, takes := range next.Lost {
			if instead, named := takes[leading]; named {
				takes = maps.Clone(takes)
				takes[leading] = together(instead, kept)
				next.Lost[pop] = takes
			}
		}
	}
}

// together returns shares and others, which count where both name a PoP.
func together(takes, others router.Takes) router.Takes {
	all := maps.Clone(takes)
	if all == nil {
		all = router.Takes{}
	}
	maps.Copy(all, others)
	return all
}
