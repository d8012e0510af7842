package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
)

// divide cuts IPv4 networks, in proportion to their addresses and down to /24 at most, until there are about as many as are
// wanted, and spreads all networks over places of their country. As in a real City database, neighbours are often at one
// place, and most places have several networks. Longer networks than /24 and those of IPv6 stay whole.
func divide(networks []network, wanted int) []network {
	var addresses float64
	missing := float64(wanted)
	for _, n := range networks {
		if n.prefix.Addr().Is4() {
			missing--
		}
		if cuttable(n.prefix) {
			addresses += math.Exp2(float64(32 - n.prefix.Bits()))
		}
	}
	random := rand.New(rand.NewPCG(7, 7))
	places := map[*country][]place{}
	placeIn := func(c *country) place {
		known := places[c]
		if len(known) > 0 && random.IntN(16) > 0 {
			return known[random.IntN(len(known))]
		}
		made := place{
			max(-90, min(90, c.lat+1.5*random.NormFloat64())),
			max(-180, min(180, c.lon+1.5*random.NormFloat64())),
		}
		places[c] = append(known, made)
		return made
	}
	var divided []network
	for _, n := range networks {
		bits, parts := n.prefix.Bits(), 1.0
		if cuttable(n.prefix) {
			parts = math.Exp2(float64(32-bits)) / addresses * missing
		}
		for math.Exp2(float64(bits-n.prefix.Bits())) < parts && bits < 24 {
			bits++
		}
		at := placeIn(n.country)
		for i := range 1 << (bits - n.prefix.Bits()) {
			if i > 0 && random.IntN(3) > 0 {
				at = placeIn(n.country)
			}
			divided = append(divided, network{part(n.prefix, bits, i), n.country, at})
		}
	}
	return divided
}

func cuttable(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() < 24 }

// part returns the i-th of the parts of so many bits.
func part(whole netip.Prefix, bits, i int) netip.Prefix {
	if bits == whole.Bits() {
		return whole
	}
	a := whole.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(i)<<(32-bits))
	return netip.PrefixFrom(netip.AddrFrom4(a), bits)
}
