package dnssec

import (
	"strings"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// Propagation is for how long at most a change of the signing is supposed to be known to some DNS nodes only. A change takes
// effect within a second on a node that the store can reach.
const Propagation = time.Minute

// ZoneTTLs returns the times that a roll in a zone of the topology has to wait for; ds is the time to live of its DS records,
// which the parent decides. The DNSKEY records have the time to live of the zone.
func ZoneTTLs(t *topology.Topology, zone string, ds time.Duration) TTLs {
	ttls := TTLs{DS: ds, Propagation: Propagation}
	z := t.Zones[zone]
	if z == nil {
		return ttls
	}
	ttls.DNSKEY = time.Duration(z.TTL)
	ttls.Zone = max(ttls.DNSKEY, time.Duration(z.NegativeTTL))
	for name, s := range t.Services {
		if name == zone || strings.HasSuffix(name, "."+zone) {
			ttls.Zone = max(ttls.Zone, time.Duration(s.Steering.TTL))
		}
	}
	for _, line := range z.Records {
		if rr, err := topology.ParseRecord(zone, z.TTL, line); err == nil {
			ttls.Zone = max(ttls.Zone, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return ttls
}
