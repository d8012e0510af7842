package spill

import (
	"maps"

	"github.com/isochrone/isochrone/router"
)

// keep gives PoPs that are away the shares in force, so that they take no more than those when they come back.
func (w *World) keep(next *router.Spill, inForce router.Spill) {
	for i := range w.groups {
		leading := w.groups[i].leading
		kept := router.Takes{}
		for _, pop := range w.Away {
			if share, limited := inForce.Takes[leading][pop]; limited {
				kept[pop] = share
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
