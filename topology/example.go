package topology

import "net/netip"

// ExampleZone and ExampleService are the names of the example world.
const (
	ExampleZone    = "isochrone.test"
	ExampleService = "intake." + ExampleZone
)

// ExamplePoPs are the PoPs of the example world, in the order in which they get addresses; positions are from GeoNames.
var ExamplePoPs = []string{"sin1", "fra1", "iad1", "nrt1", "gru1", "jnb1"}

// ExampleClusters are the clusters of the example world.
var ExampleClusters = []string{"ap", "eu", "us"}

var exampleLocations = map[string]Location{
	"sin1": {1.2897, 103.8501, "SG", "Singapore"},
	"fra1": {50.1155, 8.6842, "DE", "Frankfurt"},
	"iad1": {39.0437, -77.4875, "US", "Ashburn, Virginia"},
	"nrt1": {35.6895, 139.6917, "JP", "Tokyo"},
	"gru1": {-23.5475, -46.6361, "BR", "São Paulo"},
	"jnb1": {-26.2023, 28.0436, "ZA", "Johannesburg"},
	"ap":   {22.2783, 114.1747, "HK", "Hong Kong"},
	"eu":   {51.5085, -0.1257, "GB", "London"},
	"us":   {39.0437, -77.4875, "US", "Ashburn, Virginia"},
}

// Example returns the example world, with the addresses that are given for its PoPs and clusters.
func Example(nameserver netip.Addr, pops map[string]netip.AddrPort, clusters map[string]string) *Topology {
	t := &Topology{
		Zones: map[string]*Zone{ExampleZone: {
			Schema:      FirstSchema,
			Nameservers: map[string][]netip.Addr{"ns1." + ExampleZone: {nameserver}},
			Hostmaster:  "hostmaster." + ExampleZone,
		}},
		Services: map[string]*Service{ExampleService: {Schema: FirstSchema}},
		PoPs:     map[string]*PoP{},
		Clusters: map[string]*Cluster{},
	}
	for _, name := range ExamplePoPs {
		t.PoPs[name] = &PoP{
			Schema: FirstSchema, Location: exampleLocations[name],
			Addresses: []netip.Addr{pops[name].Addr()}, Port: pops[name].Port(), CapacityRPS: 2000,
		}
	}
	for _, name := range ExampleClusters {
		t.Clusters[name] = &Cluster{Schema: FirstSchema, Location: exampleLocations[name], Endpoints: []string{clusters[name]}}
	}
	for _, r := range t.Refs() {
		t.Object(r).fillDefaults()
	}
	return t
}
