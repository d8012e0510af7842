package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/whatif"
	"github.com/isochrone/isochrone/topology"
)

// foresight keeps what effects are found with: the world's clients of the newest geo database, and the table of the topology in force for
// them. Both are small, and compiled apart from those that questions are answered from.
type foresight struct {
	mu    sync.Mutex
	of    *router.Atlas
	world *whatif.World
	table *router.Table // of the topology that is in its snapshot
}

// Bounds of what is foreseen.
const (
	maxForeseenServices = 100
	maxMoves            = 20
)

// usedCapacity is how much of its capacity the busiest PoP is taken to use, where it is not known what all of them get.
const usedCapacity = 0.6

// now returns the world's clients, and the view in force for them. There are no clients when the geo database has none.
func (f *foresight) now(view *router.View) (*whatif.World, *router.View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if atlas := view.Table.Atlas(); f.of != atlas {
		world, err := whatif.NewWorld(atlas)
		if err != nil {
			return nil, nil, err
		}
		f.of, f.world, f.table = atlas, world, nil
	}
	top := view.Table.Snapshot().Topology
	if f.table == nil || f.table.Snapshot().Topology != top {
		table, err := view.Table.Elsewhere(f.world.Atlas, top)
		if err != nil {
			return nil, nil, err
		}
		f.table = table
	}
	return f.world, view.On(f.table, nil), nil
}

// foreseen is what a change does.
type foreseen struct {
	effects    []Effect
	loads      map[string]whatif.Load // as parts of capacity where one is stated
	overloaded []string               // that are not now, or less so
	traffic    string                 // what loads are reckoned with, in words; empty where no PoP states a capacity
}

// effects compares the topology in force with another one. Nothing is foreseen before there is a view.
func (s *Service) effects(after *topology.Topology) ([]Effect, error) {
	view := s.View()
	if view == nil {
		return []Effect{}, nil
	}
	return s.effectsBetween(view.Table.Snapshot().Topology, after)
}

// effectsBetween compares two topologies, both with the verdicts and overrides of now.
func (s *Service) effectsBetween(before, after *topology.Topology) ([]Effect, error) {
	view := s.View()
	if view == nil {
		return []Effect{}, nil
	}
	world, now, err := s.foreseen.now(view)
	if err != nil {
		return nil, err
	}
	var views [2]*router.View
	for i, top := range []*topology.Topology{before, after} {
		views[i] = now
		if top != now.Table.Snapshot().Topology {
			table, err := now.Table.Elsewhere(world.Atlas, top)
			if err != nil {
				return nil, err
			}
			views[i] = view.On(table, nil)
		}
	}
	result, err := s.compare(world, views[0], views[1])
	if err != nil {
		return nil, err
	}
	return result.effects, nil
}

// compare finds the effects on all services that both views have.
func (s *Service) compare(world *whatif.World, before, after *router.View) (*foreseen, error) {
	f := &foreseen{effects: []Effect{}, loads: map[string]whatif.Load{}}
	if len(world.Clients) == 0 {
		return f, nil
	}
	services := 0
	for id := range min(after.Table.Services(), maxForeseenServices) {
		name, _ := after.Table.ServiceByID(router.ServiceID(id))
		if _, both := before.Table.Service(name); !both {
			continue
		}
		services++
		for _, family := range []router.Family{router.IPv4, router.IPv6} {
			if !offered(before, name, family) && !offered(after, name, family) {
				continue
			}
			report, err := whatif.Compare(before, after, name, family, world.Clients)
			if err != nil {
				return nil, fmt.Errorf("foresee the effect on %s: %w", name, err)
			}
			f.effects = append(f.effects, effectOf(report, family))
			if family == router.IPv4 {
				for pop, load := range report.PoPs {
					sum := f.loads[pop]
					f.loads[pop] = whatif.Load{Before: sum.Before + load.Before, After: sum.After + load.After, Capacity: load.Capacity}
				}
			}
		}
	}
	f.overload(s.Traffic)
	for i := range f.effects {
		f.effects[i].Overloaded = f.overloaded
	}
	return f, nil
}

// offered reports whether some PoP of a service has addresses of a family.
func offered(v *router.View, service string, family router.Family) bool {
	id, _ := v.Table.Service(service)
	for _, c := range v.Table.Candidates(id) {
		_, pop := v.Table.PoP(c)
		for _, a := range pop.Addresses {
			if a.Is4() == (family == router.IPv4) {
				return true
			}
		}
	}
	return false
}

func effectOf(report *whatif.Report, family router.Family) Effect {
	e := Effect{
		Service: report.Service, Family: family.String(), Moved: report.Moved / report.Weight, Unserved: report.Unserved[1] / report.Weight,
		Moves: []Move{}, P50MS: report.World.P50, P95MS: report.World.P95, Overloaded: []string{},
	}
	for _, m := range report.Moves[:min(len(report.Moves), maxMoves)] {
		e.Moves = append(e.Moves, Move{m.From, m.To, m.Weight / report.Weight})
	}
	return e
}

// overload makes loads parts of capacities, and finds which are too much afterwards. Traffic tells how many requests a second all PoPs
// get; nil stands for not known.
func (f *foreseen) overload(traffic func() (float64, bool)) {
	busiest, all := 0.0, 0.0
	for _, l := range f.loads {
		if all += l.Before; l.Capacity > 0 {
			busiest = max(busiest, l.Before/l.Capacity)
		}
	}
	f.overloaded = []string{}
	if busiest == 0 {
		clear(f.loads)
		return
	}
	scale := usedCapacity / busiest
	f.traffic = fmt.Sprintf("if the busiest PoP uses %.0f %% of its capacity now", 100*usedCapacity)
	if traffic != nil {
		if rps, known := traffic(); known && rps > 0 { // an idle world says nothing of how busy it will be
			scale, f.traffic = rps/all, fmt.Sprintf("with the %.3g requests a second of now", rps)
		}
	}
	for _, pop := range slices.Sorted(maps.Keys(f.loads)) {
		l := f.loads[pop]
		if l.Capacity == 0 {
			delete(f.loads, pop)
			continue
		}
		l.Before, l.After = l.Before*scale/l.Capacity, l.After*scale/l.Capacity
		f.loads[pop] = l
		if l.After > 1 && l.After > l.Before+1e-6 {
			f.overloaded = append(f.overloaded, pop)
		}
	}
}
