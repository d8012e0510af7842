package whatif

import (
	"fmt"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
)

// samples is how many networks stand for the world.
const samples = 20_000

// World is a population of the world's clients, small enough to be asked about while a person waits.
type World struct {
	Clients []Demand      // their weights sum up to 1
	Atlas   *router.Atlas // of their networks alone: what is compiled with it is small
}

// NewWorld takes the world's clients from an atlas: countries weigh as much as the world's blockchain nodes that are in them (see
// rtt.Metros), those in which none were counted share a twentieth by their numbers of addresses. An atlas that knows no place gives an
// empty world.
func NewWorld(atlas *router.Atlas) (*World, error) {
	const uncounted = 0.05
	shares, sum := map[string]float64{}, 0.0
	for _, metro := range rtt.Metros() {
		shares[metro.Country] += metro.Weight
		sum += metro.Weight
	}
	for country := range shares {
		shares[country] *= (1 - uncounted) / sum
	}
	sample := atlas.Sample(samples, shares)
	small, err := router.NewAtlas(router.SampleGeo(sample))
	if err != nil {
		return nil, fmt.Errorf("take the world's clients from the geo database: %w", err)
	}
	w := &World{Atlas: small}
	for _, n := range sample {
		w.Clients = append(w.Clients, Demand{Client: n.Prefix, Weight: n.Weight})
	}
	return w, nil
}
