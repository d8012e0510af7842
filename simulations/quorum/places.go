package quorum

import (
	"fmt"

	"github.com/isochrone/isochrone/topology"
)

// place is a city with a PoP or a DNS node.
type place struct {
	name, continent string
	at              topology.Location
}

// thirty are the first of docs/forty-pops.yaml.
var thirty = []place{
	{"lil1", "EU", at(50.633, 3.0586, "FR")}, {"pus1", "AS", at(35.1017, 129.03, "KR")}, {"iad1", "NA", at(39.0437, -77.4875, "US")},
	{"sin1", "AS", at(1.2897, 103.8501, "SG")}, {"sjc1", "NA", at(37.3394, -121.895, "US")}, {"hel1", "EU", at(60.1695, 24.9354, "FI")},
	{"fra1", "EU", at(50.1155, 8.6842, "DE")}, {"syd1", "OC", at(-33.8678, 151.2073, "AU")}, {"can1", "AS", at(23.1167, 113.25, "CN")},
	{"nrt1", "AS", at(35.6895, 139.6917, "JP")}, {"jfk1", "NA", at(40.7143, -74.006, "US")}, {"pek1", "AS", at(39.9075, 116.3972, "CN")},
	{"mci1", "NA", at(39.0997, -94.5786, "US")}, {"pdx1", "NA", at(45.5234, -122.6762, "US")}, {"lhr1", "EU", at(51.5085, -0.1257, "GB")},
	{"vno1", "EU", at(54.6892, 25.2798, "LT")}, {"pvg1", "AS", at(31.2222, 121.4581, "CN")}, {"nue1", "EU", at(49.4542, 11.0775, "DE")},
	{"dub1", "EU", at(53.3331, -6.2489, "IE")}, {"bom1", "AS", at(19.0728, 72.8826, "IN")}, {"tpa1", "NA", at(27.9475, -82.4584, "US")},
	{"yul1", "NA", at(45.5088, -73.5878, "CA")}, {"ams1", "EU", at(52.374, 4.8897, "NL")}, {"icn1", "AS", at(37.566, 126.9784, "KR")},
	{"eze1", "SA", at(-34.6131, -58.3772, "AR")}, {"lax1", "NA", at(34.0522, -118.2437, "US")}, {"mad1", "EU", at(40.4165, -3.7026, "ES")},
	{"cmh1", "NA", at(39.9612, -82.9988, "US")}, {"otp1", "EU", at(44.4323, 26.1063, "RO")}, {"dfw1", "NA", at(32.7831, -96.8067, "US")},
}

// judges are where the DNS nodes are.
var judges = []place{
	{"eu-1", "EU", at(50.1155, 8.6842, "DE")}, {"us-1", "NA", at(39.0437, -77.4875, "US")},
	{"ap-1", "AS", at(1.2897, 103.8501, "SG")}, {"sa-1", "SA", at(-34.6131, -58.3772, "AR")},
}

func at(lat, lon float64, country string) topology.Location {
	return topology.Location{LatDeg: lat, LonDeg: lon, Country: country}
}

// places returns n places of PoPs: some of the thirty, or each several times.
func places(n int) []place {
	some := []place{}
	for i := range n {
		p := thirty[i%len(thirty)]
		p.name = fmt.Sprintf("%s%d", p.name[:3], 1+i/len(thirty))
		some = append(some, p)
	}
	return some
}
