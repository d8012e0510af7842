package world

import (
	"iter"
	"net/netip"

	"github.com/isochrone/isochrone/router"
	routergeo "github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// How a database of cities errs, in parts of address blocks of a /22: assumptions within what studies of such databases report. One of
// countries has wrong countries alone.
const (
	wrongCity    = 0.13 // another metro of the country, or the country's middle if there is none
	countryOnly  = 0.05 // the country is known, the city is not
	wrongCountry = 0.02 // the place of another metro anywhere, as where the provider's headquarters are
	geoBlock     = 4    // networks that share what is known of them
)

// geo is the geo database of a world (router.Geo).
type geo struct{ w *World }

// Networks yields public resolvers, which are known exactly, providers' resolvers, and clients' networks.
func (g geo) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	w := g.w
	return func(yield func(netip.Prefix, *router.Place) bool) {
		known := map[router.Place]*router.Place{}
		intern := func(p router.Place) *router.Place {
			if known[p] == nil {
				known[p] = &p
			}
			return known[p]
		}
		for _, r := range w.Resolvers[len(w.Providers):] {
			place := router.Place{Location: r.Location, Continent: routergeo.ContinentOf(r.Country), ASN: 65_549}
			if !yield(netip.PrefixFrom(r.Addr, 24).Masked(), intern(place)) {
				return
			}
		}
		for i := range w.Providers {
			if !yield(netip.PrefixFrom(w.Resolvers[i].Addr, 24).Masked(), intern(w.believed(i, draw(w.Seed, forGeo, w.Providers[i].salt)))) {
				return
			}
		}
		for i := range w.Networks {
			provider := w.Networks[i].Provider
			place := w.believed(int(provider), draw(w.Seed, forGeo, uint64(provider), uint64(i/geoBlock)))
			if !yield(scenario.Prefix(i), intern(place)) {
				return
			}
		}
	}
}

// believed returns where the geo database puts a provider's block.
func (w *World) believed(provider int, bits uint64) router.Place {
	p := &w.Providers[provider]
	m := &w.Metros[p.Metro]
	place := router.Place{Location: m.Location, Continent: m.Continent, ASN: p.ASN}
	kind := w.Spec.Geo
	if kind == scenario.GeoExact {
		return place
	}
	pick := draw(bits, forWrongPlace)
	if below(bits, wrongCountry) {
		other := w.Metros[w.pickMetro(pick, "")]
		place.Location, place.Continent = other.Location, other.Continent
	} else if kind != scenario.GeoCountry && below(bits, wrongCountry+wrongCity) {
		if other := w.pickMetro(pick, m.Country); w.Metros[other].City != m.City {
			place.Location = w.Metros[other].Location
			return place
		}
		kind = scenario.GeoCountry
	} else if below(bits, wrongCountry+wrongCity+countryOnly) {
		kind = scenario.GeoCountry
	}
	if kind == scenario.GeoCountry {
		if of, ok := routergeo.PlaceOf(place.Country); ok {
			of.ASN = p.ASN
			return of
		}
	}
	return place
}

// pickMetro returns a metro by its share of the clients, of one country or, if it is empty, of all.
func (w *World) pickMetro(bits uint64, country string) int {
	sum := uint64(0)
	for i := range w.Metros {
		if country == "" || w.Metros[i].Country == country {
			sum += w.Metros[i].share
		}
	}
	left, last := bits%max(sum, 1), 0
	for i := range w.Metros {
		if country != "" && w.Metros[i].Country != country {
			continue
		}
		if last = i; left < w.Metros[i].share {
			break
		}
		left -= w.Metros[i].share
	}
	return last
}
