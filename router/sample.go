package router

import (
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sort"
)

// Sampled is a network of a sample of an atlas.
type Sampled struct {
	Prefix netip.Prefix
	Place  *Place
	Weight float64 // of the clients that it stands for; those of a sample sum up to about 1
}

// Sample returns at most about so many IPv4 networks of an atlas in address order, each at a known place. A country gets its share of the
// networks and of the weight: what shares has for its code, and of what is left over, in proportion to its addresses; within a
// country, addresses count alike. The same atlas gives the same sample.
func (a *Atlas) Sample(most int, shares map[string]float64) []Sampled {
	countries, total := a.countries4(), 0.0
	left, unnamed := 1.0, 0.0
	codes := slices.Sorted(maps.Keys(countries)) // so that sums are rounded alike each time
	for _, code := range codes {
		c := countries[code]
		if share, named := shares[code]; named {
			left -= share
		} else {
			unnamed += c.addresses()
		}
	}
	left = max(left, 0)
	for _, code := range codes {
		c := countries[code]
		c.weight = shares[code]
		if _, named := shares[code]; !named && unnamed > 0 {
			c.weight = left * c.addresses() / unnamed
		}
		total += c.weight
	}
	var sample []Sampled
	for _, code := range codes {
		if c := countries[code]; c.weight > 0 {
			sample = a.appendSample(sample, c, max(1, int(math.Round(float64(most)*c.weight/total))), c.weight/total)
		}
	}
	slices.SortFunc(sample, func(x, y Sampled) int { return x.Prefix.Addr().Compare(y.Prefix.Addr()) })
	return sample
}

// countryBlocks are a country's blocks of the IPv4 space.
type countryBlocks struct {
	blocks []int
	until  []float64 // of each: the addresses up to its end
	weight float64
}

func (c *countryBlocks) addresses() float64 { return c.until[len(c.until)-1] }

func (a *Atlas) countries4() map[string]*countryBlocks {
	countries := map[string]*countryBlocks{}
	for block := range a.v4.blocks() {
		place := a.places[a.v4.origin[block]]
		if place == nil || !place.Located() {
			continue
		}
		c := countries[place.Country]
		if c == nil {
			c = &countryBlocks{}
			countries[place.Country] = c
		}
		size := math.Ldexp(1, 32-a.v4.bits(block))
		if len(c.until) > 0 {
			size += c.addresses()
		}
		c.blocks, c.until = append(c.blocks, block), append(c.until, size)
	}
	return countries
}

// appendSample takes so many blocks of a country, at even distances among its addresses. One that is met again weighs more.
func (a *Atlas) appendSample(sample []Sampled, c *countryBlocks, count int, weight float64) []Sampled {
	last := -1
	for i := range count {
		at := (float64(i) + 0.5) / float64(count) * c.addresses()
		n := min(sort.SearchFloat64s(c.until, at), len(c.blocks)-1)
		if n == last {
			sample[len(sample)-1].Weight += weight / float64(count)
			continue
		}
		last = n
		block := c.blocks[n]
		sample = append(sample, Sampled{
			a.v4.start(block).prefix(a.v4.bits(block), true), a.places[a.v4.origin[block]], weight / float64(count),
		})
	}
	return sample
}

// SampleGeo is a geo database that knows a sample and nothing else.
type SampleGeo []Sampled

// Networks implements Geo.
func (s SampleGeo) Networks() iter.Seq2[netip.Prefix, *Place] {
	return func(yield func(netip.Prefix, *Place) bool) {
		for _, n := range s {
			if !yield(n.Prefix, n.Place) {
				return
			}
		}
	}
}
