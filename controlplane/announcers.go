package controlplane

import "net/netip"

// AnnouncerStatus is what a node says of the prefixes that it announces by BGP.
type AnnouncerStatus struct {
	Node     string           `json:"node"` // as it is registered, such as pop:sin1
	Prefixes []AnnouncedRoute `json:"prefixes"`
}

// AnnouncedRoute is how a node stands to a prefix.
type AnnouncedRoute struct {
	Prefix   netip.Prefix `json:"prefix"`
	Standing string       `json:"standing"` // stays, wants or dead, who announce it; left, who does not (dataplane/bgp)
}

// Words tells the standing to people.
func (r AnnouncedRoute) Words() string {
	switch r.Standing {
	case "stays":
		return "announces"
	case "wants":
		return "drains"
	case "dead":
		return "drains: its service does not work"
	}
	return "withdrawn"
}
