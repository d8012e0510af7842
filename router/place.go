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
