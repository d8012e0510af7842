package flow

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// spreads is how long an edit takes until all nodes have it in force: etcd's watch, and a table that is compiled.
const spreads = 500 * time.Millisecond

// edit has YAML merged into the topology at a time. While etcd is away nobody can edit.
func (e *engine) edit(text string, at time.Duration) error {
	if _, err := merge(e.Topology, text); err != nil {
		return fmt.Errorf("edit: %w", err)
	}
	e.when(at+spreads, func() {
		if e.etcd > 0 {
			e.note("the edit is refused: etcd is away")
			return
		}
		next, err := merge(e.topology(), text)
		if err != nil {
			e.note("the edit is refused: %v", err)
			return
		}
		e.apply(next)
	})
	return nil
}

// topology returns the one in force.
func (e *engine) topology() *topology.Topology {
	if e.edited != nil {
		return e.edited
	}
	return e.Topology
}

// apply puts a topology in force.
func (e *engine) apply(next *topology.Topology) {
	e.edited = next
	e.note("the edit is in force")
	for p, pop := range e.pops {
		one := next.PoPs[pop.name]
		e.drains[p] = one == nil || one.State != topology.Active || e.overrides[pop.name] != nil
		if one != nil {
			e.pops[p].capacity = float64(one.CapacityRPS)
		}
	}
	if r, ok := e.policy.(*routed); ok {
		table, err := r.table.With(&topology.Snapshot{Topology: next})
		if err == nil {
			err = r.use(e, table)
		}
		if err != nil {
			e.note("the edit is refused: %v", err)
			return
		}
		if e.planner != nil {
			e.planner.soon(e, r)
		}
	}
	e.reach()
	e.disturb()
	e.decide()
}

// merge returns a topology with YAML merged into it: what is null there is taken away.
func merge(t *topology.Topology, text string) (*topology.Topology, error) {
	var base, edit map[string]any
	if err := yaml.Unmarshal(t.Marshal(), &base); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(text), &edit); err != nil {
		return nil, err
	}
	out, err := yaml.Marshal(overlaid(base, edit))
	if err != nil {
		return nil, err
	}
	return topology.Parse(out)
}

func overlaid(base, edit map[string]any) map[string]any {
	for key, value := range edit {
		inner, isMap := value.(map[string]any)
		below, wasMap := base[key].(map[string]any)
		switch {
		case value == nil:
			delete(base, key)
		case isMap && wasMap:
			base[key] = overlaid(below, inner)
		default:
			base[key] = value
		}
	}
	return base
}
