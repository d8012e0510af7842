package whatif

import (
	"maps"
	"math"
	"testing"

	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
)

func TestWorld(t *testing.T) {
	atlas, _, err := geo.Sources{}.Load()
	if err != nil {
		t.Fatal(err)
	}
	world, err := NewWorld(atlas)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(world.Clients); n < 1000 || n > samples*11/10 {
		t.Errorf("got %d clients, want at most about %d", n, samples)
	}
	sum, shares, total := 0.0, map[string]float64{}, 0.0
	for _, n := range atlas.Sample(samples, counted()) {
		shares[n.Place.Country] += n.Weight
		sum += n.Weight
	}
	for _, weight := range shares {
		total += weight
	}
	if math.Abs(sum-1) > 1e-9 || math.Abs(total-1) > 1e-9 {
		t.Errorf("weights sum up to %v, want 1", sum)
	}
	for country, want := range counted() {
		if got := shares[country]; math.Abs(got-want) > 0.001 {
			t.Errorf("%s: got a share of %.4f, want %.4f", country, got, want)
		}
	}
	again, err := NewWorld(atlas)
	if err != nil || !maps.Equal(weights(world), weights(again)) {
		t.Errorf("another world of the same atlas differs: %v", err)
	}
	if len(atlas.Sample(samples, nil)) == 0 {
		t.Error("without shares there is no sample")
	}
}

// counted are the shares of countries in which nodes were counted.
func counted() map[string]float64 {
	shares, sum := map[string]float64{}, 0.0
	for _, metro := range rtt.Metros() {
		shares[metro.Country] += metro.Weight
		sum += metro.Weight
	}
	for country := range shares {
		shares[country] *= 0.95 / sum
	}
	return shares
}

func weights(w *World) map[string]float64 {
	all := map[string]float64{}
	for _, d := range w.Clients {
		all[d.Client.String()] = d.Weight
	}
	return all
}
