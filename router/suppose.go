package router

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// Suppose returns the view as it would be if something were so, such as "pop sin1 down", "pop sin1 up", "pop sin1 draining" or
// "pop new1 at 1.35,103.8" (or "at 1.35,103.8,SG"). A new PoP has addresses of the families that others have, and offers every
// service that does not name its PoPs. The error says what could not be understood.
func Suppose(v *View, what ...string) (*View, error) {
	in, top := v.State.inputs, v.Table.snapshot.Topology
	changed := map[topology.Ref]topology.Object{}
	for _, one := range what {
		words := strings.Fields(one)
		if len(words) < 3 || words[0] != "pop" {
			return nil, misunderstood(one)
		}
		ref := topology.Ref{Kind: topology.PoPs, Name: words[1]}
		pop := top.PoPs[words[1]]
		if o, ok := changed[ref]; ok {
			pop = o.(*topology.PoP)
		}
		if words[2] != "at" && pop == nil {
			return nil, fmt.Errorf("%q: there is no PoP %s; there are %s", one, words[1], strings.Join(slices.Sorted(maps.Keys(top.PoPs)), ", "))
		}
		switch {
		case words[2] == "down" && len(words) == 3:
			in = in.supposing(words[1], health.Down)
		case words[2] == "up" && len(words) == 3:
			in = in.supposing(words[1], health.Up)
		case words[2] == "draining" && len(words) == 3:
			drained := *pop
			drained.State = topology.Draining
			changed[ref] = &drained
		case words[2] == "at" && len(words) == 4:
			moved, err := supposedPoP(top, pop, words[3])
			if err != nil {
				return nil, fmt.Errorf("%q: %w", one, err)
			}
			changed[ref] = moved
		default:
			return nil, misunderstood(one)
		}
	}
	table := v.Table
	if len(changed) > 0 {
		snap := *v.Table.snapshot
		snap.Topology = top.With(changed, nil)
		var err error
		if table, err = v.Table.With(&snap); err != nil {
			return nil, err
		}
	}
	return &View{table, NewState(table, in)}, nil
}

func misunderstood(one string) error {
	return fmt.Errorf("%q is not understood: want \"pop NAME down\", \"pop NAME up\", \"pop NAME draining\" or \"pop NAME at LAT,LON[,COUNTRY]\"", one)
}

// supposedPoP is a PoP at another place, or a new one.
func supposedPoP(top *topology.Topology, known *topology.PoP, text string) (*topology.PoP, error) {
	parts := strings.Split(text, ",")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, fmt.Errorf("%q is not LAT,LON or LAT,LON,COUNTRY", text)
	}
	lat, errLat := strconv.ParseFloat(parts[0], 64)
	lon, errLon := strconv.ParseFloat(parts[1], 64)
	if errLat != nil || errLon != nil || !(lat >= -90 && lat <= 90) || !(lon >= -180 && lon <= 180) {
		return nil, fmt.Errorf("%q is not a place in degrees", text)
	}
	made := &topology.PoP{Schema: topology.FirstSchema, Port: 443, State: topology.Active}
	if known != nil {
		*made = *known
	} else {
		for _, name := range slices.Sorted(maps.Keys(top.PoPs)) {
			if p := top.PoPs[name]; len(p.Addresses) > len(made.Addresses) {
				made.Addresses = p.Addresses // of what families matters, not which they are
			}
		}
	}
	made.Location = topology.Location{LatDeg: lat, LonDeg: lon}
	if len(parts) == 3 {
		made.Location.Country = strings.ToUpper(parts[2])
	}
	return made, nil
}
