package world

import (
	"cmp"
	"math"
	"slices"

	routergeo "github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// addMetros puts clients where the scenario says, or where the world's nodes are.
func (w *World) addMetros() error {
	var weights []float64
	for i, near := range w.Spec.Clients.Near {
		place, err := scenario.PlaceOf(near.Place)
		if err != nil {
			return invalid("world.clients.near[%d].place: %v", i, err)
		}
		w.Metros = append(w.Metros, Metro{Location: place.Location, IATA: place.IATA, Hosted: nearestMetro(place).Hosted})
		weights = append(weights, near.Weight)
	}
	if len(w.Metros) == 0 {
		for _, m := range rtt.Metros() {
			w.Metros = append(w.Metros, Metro{Location: m.Location, IATA: iataAt(m.Location), Hosted: m.Hosted})
			weights = append(weights, m.Weight)
		}
	}
	shares := sharesOf(weights)
	nodes := divide(uint64(w.Spec.Clients.Count), shares)
	for i := range w.Metros {
		m := &w.Metros[i]
		m.share, m.Nodes, m.Continent = shares[i], int(nodes[i]), routergeo.ContinentOf(m.Country)
		w.Nodes += m.Nodes
	}
	return nil
}

// nearestMetro returns the metro of the world's nodes that is nearest to a place, by the model.
func nearestMetro(place scenario.Place) rtt.Metro {
	to := rtt.Default().To(place.Location)
	return slices.MinFunc(rtt.Metros(), func(a, b rtt.Metro) int {
		return cmp.Compare(math.Round(to.Milliseconds(a.Location)*100), math.Round(to.Milliseconds(b.Location)*100))
	})
}

// iataAt returns the code of the built-in place at a location, if there is one.
func iataAt(l topology.Location) string {
	for _, p := range scenario.Places() {
		if p.Country == l.Country && math.Abs(p.LatDeg-l.LatDeg) < 0.3 && math.Abs(p.LonDeg-l.LonDeg) < 0.3 {
			return p.IATA
		}
	}
	return ""
}
