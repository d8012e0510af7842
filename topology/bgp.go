package topology

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BGP is how a node announces prefixes to its routers (RFC 4271).
type BGP struct {
	ASN           uint32              `yaml:"asn" json:"asn"`                                 // the node's own autonomous system
	RouterID      *netip.Addr         `yaml:"router_id,omitempty" json:"router_id,omitempty"` // an IPv4 address of this node alone; default the first one that it has
	Peers         map[string]*BGPPeer `yaml:"peers" json:"peers"`                             // by a name of the operator's choice
	Communities   []string            `yaml:"communities,omitempty,flow" json:"communities"`  // 64500:120 (RFC 1997) or 64500:1:2 (RFC 8092), at most 32
	MED           *uint32             `yaml:"med,omitempty" json:"med,omitempty"`             // MULTI_EXIT_DISC: lower is preferred; default none
	Prepend       int                 `yaml:"prepend,omitempty" json:"prepend,omitempty"`     // how often more the own AS stands in the path, 0..10
	MinAnnouncers *int                `yaml:"min_announcers,omitempty" json:"min_announcers"` // of a prefix, 0..64, this node included; 0 is no floor; default 1
	Drain         Duration            `yaml:"drain,omitempty" json:"drain"`                   // how long GRACEFUL_SHUTDOWN is announced first, 1s..1h; default 5s
	Rise          Duration            `yaml:"rise,omitempty" json:"rise"`                     // how long all must have been well first, 1s..1h; default 3s
}

// BGPPeer is a router that a node announces to.
type BGPPeer struct {
	Address      netip.Addr   `yaml:"address" json:"address"`
	Port         uint16       `yaml:"port" json:"port"`                                       // default 179
	ASN          uint32       `yaml:"asn" json:"asn"`                                         // that of the node itself is iBGP
	LocalAddress *netip.Addr  `yaml:"local_address,omitempty" json:"local_address,omitempty"` // that the node connects from; default as routed
	MD5          bool         `yaml:"md5,omitempty" json:"md5,omitempty"`                     // TCP MD5 (RFC 2385), by the secret bgp.NODE.PEER or bgp.PEER
	GTSM         int          `yaml:"gtsm,omitempty" json:"gtsm,omitempty"`                   // hops to the peer at most (RFC 5082), 1 for a neighbour; 0 is no check
	Multihop     int          `yaml:"multihop,omitempty" json:"multihop,omitempty"`           // TTL of packets to an eBGP peer, 0..255; 0 stands for 1
	HoldTime     Duration     `yaml:"hold_time" json:"hold_time"`                             // silence after which the peer counts as gone, 3s..18h; default 9s
	Passive      bool         `yaml:"passive,omitempty" json:"passive,omitempty"`             // the peer connects: the node listens at local_address and port
	Families     []Family     `yaml:"families,omitempty,flow" json:"families,omitempty"`      // default that of address
	NextHops     []netip.Addr `yaml:"next_hops,omitempty,flow" json:"next_hops,omitempty"`    // the node's own, of each family that is not that of address
}

// Family is a family of addresses.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Carries reports whether prefixes of a family are announced to the peer.
func (p *BGPPeer) Carries(f Family) bool {
	if len(p.Families) == 0 {
		return f == FamilyOf(p.Address)
	}
	return slices.Contains(p.Families, f)
}

// BGPFile is what a node that is no object of the topology announces, and to whom.
type BGPFile struct {
	Announces []netip.Prefix `yaml:"announces,flow" json:"announces"`
	BGP       `yaml:",inline"`
}

// ParseBGPFile reads and checks the file of a node that has some addresses of its own.
func ParseBGPFile(text []byte, own []netip.Addr) (*BGPFile, []Fault) {
	f, d := new(BGPFile), decoder{}
	d.decode(text, "bgp", f)
	f.fillDefaults()
	c := &checker{path: "bgp"}
	c.announces(f.Announces)
	c.bgp("", &f.BGP, f.Announces, own)
	if faults := d.all(c.faults); len(faults) > 0 {
		return nil, faults
	}
	return f, nil
}

func (b *BGP) fillDefaults() {
	if b.MinAnnouncers == nil {
		one := 1
		b.MinAnnouncers = &one
	}
	b.Drain, b.Rise = cmp.Or(b.Drain, Duration(5*time.Second)), cmp.Or(b.Rise, Duration(3*time.Second))
	for _, p := range b.Peers {
		if p == nil {
			continue
		}
		if p.HoldTime = cmp.Or(p.HoldTime, Duration(9*time.Second)); p.Port == 0 {
			p.Port = 179
		}
	}
}

// RouterIDOf returns the router id of a node that has some addresses of its own, and false when nothing says one.
func (b *BGP) RouterIDOf(own []netip.Addr) (netip.Addr, bool) {
	if b.RouterID != nil {
		return *b.RouterID, true
	}
	if i := slices.IndexFunc(own, netip.Addr.Is4); i >= 0 {
		return own[i], true
	}
	return netip.Addr{}, false
}

func (c *checker) announces(prefixes []netip.Prefix) {
	for i, prefix := range prefixes {
		field := fmt.Sprintf("announces[%d]", i)
		if c.prefix(field, prefix); slices.Contains(prefixes[:i], prefix) {
			c.fault(field, "%v stands here twice", prefix)
		}
	}
}

// Bounds of one node's BGP.
const (
	maxBGPPeers       = 32
	maxBGPCommunities = 32
)

// bgp checks how a node announces prefixes. The field ends with a full stop, or is empty.
func (c *checker) bgp(field string, b *BGP, announces []netip.Prefix, own []netip.Addr) {
	c.asn(field+"asn", b.ASN)
	if id, ok := b.RouterIDOf(own); !ok || !id.Is4() || id.IsUnspecified() {
		c.fault(field+"router_id", "%s is no IPv4 address of this node alone, such as 192.0.2.1 (wanted where all else is IPv6, too)", text(id))
	}
	if len(b.Communities) > maxBGPCommunities {
		c.fault(field+"communities", "has %d entries, at most %d are taken", len(b.Communities), maxBGPCommunities)
	}
	for i, community := range b.Communities {
		if _, err := ParseCommunity(community); err != nil {
			c.fault(fmt.Sprintf("%scommunities[%d]", field, i), "%v", err)
		}
	}
	within(c, field+"prepend", b.Prepend, 0, 10)
	within(c, field+"min_announcers", *b.MinAnnouncers, 0, 64)
	c.seconds(field+"drain", b.Drain, time.Hour)
	c.seconds(field+"rise", b.Rise, time.Hour)
	if len(announces) == 0 {
		c.fault(field+"peers", "there is nothing to tell them: want prefixes in announces")
	}
	for i, prefix := range announces {
		if prefix.IsValid() && prefix.Bits() == 0 {
			c.fault(fmt.Sprintf("announces[%d]", i), "%v is the whole Internet: want the prefixes of the VIPs", prefix)
		}
	}
	c.bgpPeers(field+"peers", b, announces)
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return "nothing"
	}
	return a.String()
}

func (c *checker) bgpPeers(field string, b *BGP, announces []netip.Prefix) {
	if len(b.Peers) == 0 || len(b.Peers) > maxBGPPeers {
		c.fault(field, "has %d entries: want 1..%d routers by name", len(b.Peers), maxBGPPeers)
		return
	}
	seen := map[netip.Addr]string{}
	for _, name := range slices.Sorted(maps.Keys(b.Peers)) {
		p, at := b.Peers[name], field+"."+name
		if !label.MatchString(name) {
			c.fault(at, "%q is not a name: want lower-case letters, digits and hyphens, at most 63", name)
		}
		if other := seen[p.Address]; other != "" {
			c.fault(at+".address", "%v is that of %s already", p.Address, other)
		}
		seen[p.Address] = name
		c.bgpPeer(at, b, p)
	}
	for i, prefix := range announces {
		family := FamilyOf(prefix.Addr())
		if !slices.ContainsFunc(slices.Collect(maps.Values(b.Peers)), func(p *BGPPeer) bool { return p.Carries(family) }) {
			c.fault(fmt.Sprintf("announces[%d]", i), "%v is told to nobody: none of the peers carries %s", prefix, family)
		}
	}
}

func (c *checker) bgpPeer(at string, b *BGP, p *BGPPeer) {
	if a := p.Address; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		c.fault(at+".address", "%v is no address of a router", text(a))
		return
	}
	c.asn(at+".asn", p.ASN)
	if a := p.LocalAddress; a != nil && (FamilyOf(*a) != FamilyOf(p.Address) || a.Is4In6() || a.Zone() != "") {
		c.fault(at+".local_address", "%v is not of the family of %v", a, p.Address)
	}
	if p.Passive && p.LocalAddress == nil {
		c.fault(at+".passive", "wants local_address, which is listened at")
	}
	within(c, at+".gtsm", p.GTSM, 0, 254)
	within(c, at+".multihop", p.Multihop, 0, 255)
	if p.GTSM > 0 && p.Multihop > 0 {
		c.fault(at+".gtsm", "goes not with multihop: gtsm says itself how far away the peer may be")
	}
	if p.Multihop > 0 && p.ASN == b.ASN {
		c.fault(at+".multihop", "is for eBGP: this peer has the same AS")
	}
	if d := time.Duration(p.HoldTime); d < 3*time.Second || d > 18*time.Hour || d%time.Second != 0 {
		c.fault(at+".hold_time", "%v is not a whole number of seconds in 3s..18h", d)
	}
	for i, f := range p.Families {
		oneOf(c, fmt.Sprintf("%s.families[%d]", at, i), f, IPv4, IPv6)
	}
	for _, f := range []Family{IPv4, IPv6} {
		hops := slices.DeleteFunc(slices.Clone(p.NextHops), func(a netip.Addr) bool { return FamilyOf(a) != f })
		if want := p.Carries(f) && f != FamilyOf(p.Address); want != (len(hops) == 1) && (want || len(hops) > 0) {
			c.fault(at+".next_hops", "has %d of %s: want one of each family that is not that of the peer's address, and no other", len(hops), f)
		}
	}
}

// asn checks the number of an autonomous system.
func (c *checker) asn(field string, asn uint32) {
	switch asn {
	case 0, 23456, 65535, 4294967295: // RFC 7607, RFC 6793, RFC 7300
		c.fault(field, "%d is not the number of an autonomous system, such as 64512", asn)
	}
}

// ParseCommunity reads a community, such as 64500:120, or a large one, such as 64500:1:2: it returns two numbers or three. Those that would
// undo what an announcement is for, or that say what health says, are refused.
func ParseCommunity(community string) ([]uint32, error) {
	parts := strings.Split(community, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	var numbers []uint32
	for _, part := range parts {
		n, err := strconv.ParseUint(part, 10, max(bits, 1))
		if bits == 0 || err != nil {
			return nil, fmt.Errorf("%q is not a community such as 64500:120 or 64500:1:2", community)
		}
		numbers = append(numbers, uint32(n))
	}
	if len(numbers) == 2 && numbers[0] == 65535 {
		switch numbers[1] {
		case 0:
			return nil, fmt.Errorf("%q is GRACEFUL_SHUTDOWN, which is announced by itself when the node is drained", community)
		case 666:
			return nil, fmt.Errorf("%q is BLACKHOLE: nobody would be carried here", community)
		}
	}
	return numbers, nil
}
