package router

import (
	"iter"
	"net/netip"

	"github.com/isochrone/isochrone/topology"
)

// Place is where a network's clients are, as far as the geo database knows.
type Place struct {
	topology.Location
	Continent string `json:"continent,omitempty"` // two letters, such as AS; empty when not known
	ASN       uint32 `json:"asn,omitempty"`       // 0 when not known
	Coarse    bool   `json:"coarse,omitempty"`    // the location stands for a country so large that a nearest PoP may be wrong
}

// Geo is a geo database as an atlas is made from it.
type Geo interface {
	// Networks yields disjoint networks in address order, IPv4 (unmapped) before IPv6, each with its place. Equal places
	// are the same pointer, and a place is never changed. Networks whose place is not known are left out.
	Networks() iter.Seq2[netip.Prefix, *Place]
}

// Overlay knows something better than the geo database, such as an ASN database or an operator's own table.
type Overlay interface {
	// Networks yields prefixes in any order; they may lie in each other, and the longest one that holds a client counts.
	// What a place leaves empty stays as it is: all of its location, or the ASN.
	Networks() iter.Seq2[netip.Prefix, *Place]
}

// Located reports whether the place has a location.
func (p *Place) Located() bool { return p.Location != topology.Location{} }

// over returns what is known when p is laid over another place, which may be nil.
func (p *Place) over(below *Place) *Place {
	merged := *p
	if below == nil {
		return &merged
	}
	if !p.Located() {
		merged = *below
		merged.ASN = p.ASN
	} else if p.ASN == 0 {
		merged.ASN = below.ASN
	}
	if merged.Continent == "" && merged.Country == below.Country {
		merged.Continent = below.Continent
	}
	return &merged
}
