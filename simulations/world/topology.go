package world

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/topology"
)

// The addresses of worlds that have no topology of their own. PoPs are in 198.18.0.0/15 and 2001:db8::/32.
var (
	VIP       = netip.MustParseAddr("203.0.113.1") // that all PoPs announce
	vipPrefix = netip.MustParsePrefix("203.0.113.0/24")
	firstPoP4 = [4]byte{198, 18, 0, 0}
	firstPoP6 = [16]byte{0x20, 0x01, 0x0d, 0xb8}
	nameSrv   = netip.MustParseAddr("192.0.2.53")
)

func invalid(format string, args ...any) error {
	path, message, _ := strings.Cut(fmt.Sprintf(format, args...), ": ")
	return &scenario.InvalidError{Faults: []topology.Fault{{Path: path, Message: message}}}
}

// addTopology takes the operator's topology, or makes one.
func (w *World) addTopology() error {
	t := w.Spec.Topology
	if t == nil {
		var err error
		if t, err = w.newTopology(); err != nil {
			return err
		}
	}
	t, err := topology.Parse(t.Marshal()) // a copy, with defaults
	if err != nil {
		return fmt.Errorf("%w: %w", scenario.ErrInvalid, err)
	}
	services := slices.Sorted(maps.Keys(t.Services))
	if len(services) == 0 {
		return invalid("world.topology: there is no service in it")
	}
	w.Service = services[0]
	steering := &t.Services[w.Service].Steering
	if w.Spec.Policy != nil {
		steering.Policy = *w.Spec.Policy
	}
	if w.Spec.Answers > 0 {
		steering.Answers = w.Spec.Answers
	}
	if w.Spec.TTL > 0 {
		steering.TTL = w.Spec.TTL
	}
	if faults := t.Validate(); len(faults) > 0 {
		return &scenario.InvalidError{Faults: faults}
	}
	w.Topology = t
	return nil
}

func (w *World) newTopology() (*topology.Topology, error) {
	t := &topology.Topology{
		Zones: map[string]*topology.Zone{topology.ExampleZone: {
			Schema: 1, Nameservers: map[string][]netip.Addr{"ns1." + topology.ExampleZone: {nameSrv}}, Hostmaster: "hostmaster." + topology.ExampleZone,
		}},
		Services: map[string]*topology.Service{topology.ExampleService: {Schema: 1}},
		PoPs:     map[string]*topology.PoP{}, Clusters: map[string]*topology.Cluster{},
	}
	if w.Spec.PoPs == nil || w.Spec.Clusters == nil {
		return nil, invalid("world: it has neither a topology nor pops and clusters")
	}
	places, err := w.places()
	if err != nil {
		return nil, err
	}
	used := map[string]int{}
	for i, p := range places {
		four, six := firstPoP4, firstPoP6
		four[2], four[3] = byte((i+1)>>8), byte(i+1)
		six[14], six[15] = byte((i+1)>>8), byte(i+1)
		t.PoPs[numbered(used, p)] = &topology.PoP{
			Schema: 1, Location: p.Location, Addresses: []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)},
			VIPs: []netip.Addr{VIP}, Announces: []netip.Prefix{vipPrefix},
		}
	}
	for i, at := range w.Spec.Clusters.At {
		p, err := scenario.PlaceOf(at)
		if err != nil {
			return nil, invalid("world.clusters.at[%d]: %v", i, err)
		}
		name := strings.ToLower(p.IATA)
		if name == "" || t.Clusters[name] != nil {
			name = fmt.Sprintf("cluster%d", i+1)
		}
		t.Clusters[name] = &topology.Cluster{Schema: 1, Location: p.Location, Endpoints: []string{"https://" + name + ".clusters." + topology.ExampleZone}}
	}
	return t, w.addCapacities(t)
}

// numbered names a PoP: by the place's IATA code, or else its country, and a number.
func numbered(used map[string]int, p scenario.Place) string {
	name := strings.ToLower(p.IATA)
	if name == "" {
		name = strings.ToLower(p.Country)
	}
	used[name]++
	return fmt.Sprintf("%s%d", name, used[name])
}

// places returns where the PoPs are.
func (w *World) places() ([]scenario.Place, error) {
	if at := w.Spec.PoPs.At; len(at) > 0 {
		return placesOf("at", at)
	}
	all, err := w.Sites()
	if err != nil {
		return nil, err
	}
	return w.chosen(all, w.Spec.PoPs.Count), nil
}

// Sites returns the places among which PoPs are chosen when they are counted: those that the scenario says, or all built-in places that have an IATA
// code.
func (w *World) Sites() ([]scenario.Place, error) {
	if w.Spec.PoPs != nil && len(w.Spec.PoPs.Sites) > 0 {
		return placesOf("sites", w.Spec.PoPs.Sites)
	}
	return slices.DeleteFunc(slices.Clone(scenario.Places()), func(p scenario.Place) bool { return p.IATA == "" }), nil
}

// Predicted returns the model's round-trip times between a place and all metros, in milliseconds.
func (w *World) Predicted(at scenario.Place) []float64 {
	ms := make([]float64, len(w.Metros))
	for m, us := range w.predicted([]topology.Location{at.Location}) {
		ms[m] = float64(us[0]) / 1000
	}
	return ms
}

// placesOf returns the places that a key of the scenario's PoPs names.
func placesOf(key string, names []string) ([]scenario.Place, error) {
	places := make([]scenario.Place, len(names))
	for i, name := range names {
		var err error
		if places[i], err = scenario.PlaceOf(name); err != nil {
			return nil, invalid("world.pops.%s[%d]: %v", key, i, err)
		}
	}
	return places, nil
}

// chosen returns so many of some places: one after the other, that which lowers the clients' mean predicted RTT most (greedy
// k-median). When all are taken, the next PoP goes to the place where each has most clients nearest to it.
func (w *World) chosen(all []scenario.Place, count int) []scenario.Place {
	us := w.predicted(locationsOf(all))
	var picked []int
	best := slices.Repeat([]uint64{math.MaxUint32}, len(w.Metros))
	for len(picked) < min(count, len(all)) {
		least, next := uint64(math.MaxUint64), -1
		for i := range all {
			sum := uint64(0)
			for m := range w.Metros {
				sum += w.Metros[m].share / 1000 * min(best[m], uint64(us[m][i]))
			}
			if sum < least && !slices.Contains(picked, i) {
				least, next = sum, i
			}
		}
		picked = append(picked, next)
		for m := range best {
			best[m] = min(best[m], uint64(us[m][next]))
		}
	}
	demand, have := w.demands(us, picked), slices.Repeat([]uint64{1}, len(picked))
	for n := len(picked); n < count; n++ {
		next := 0
		for i := range have {
			if demand[i]*(have[next]+1) > demand[next]*(have[i]+1) {
				next = i
			}
		}
		have[next]++
		picked = append(picked, picked[next])
	}
	places := make([]scenario.Place, len(picked))
	for i, p := range picked {
		places[i] = all[p]
	}
	return places
}

func locationsOf(places []scenario.Place) []topology.Location {
	locations := make([]topology.Location, len(places))
	for i, p := range places {
		locations[i] = p.Location
	}
	return locations
}

// predicted returns the model's round-trip times in µs, by metro and place.
func (w *World) predicted(to []topology.Location) [][]uint32 {
	targets, us := rtt.Default().Targets(to), make([][]uint32, len(w.Metros))
	for m := range us {
		us[m] = make([]uint32, len(to))
		targets.Microseconds(w.Metros[m].Location, us[m])
	}
	return us
}

// demands returns the shares of clients, in 1/unit, that are nearest to each of the picked places.
func (w *World) demands(us [][]uint32, picked []int) []uint64 {
	demand := make([]uint64, len(picked))
	for m := range w.Metros {
		nearest := 0
		for i, p := range picked {
			if us[m][p] < us[m][picked[nearest]] {
				nearest = i
			}
		}
		demand[nearest] += w.Metros[m].share
	}
	return demand
}

// addCapacities divides what all PoPs can do together among them.
func (w *World) addCapacities(t *topology.Topology) error {
	spec := w.Spec.PoPs
	if spec.Capacity == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(t.PoPs))
	for _, name := range slices.Sorted(maps.Keys(spec.Shares)) {
		if t.PoPs[name] == nil {
			return invalid("world.pops.shares.%s: there is no such PoP; there are %s", name, strings.Join(names, ", "))
		}
	}
	locations, order := []topology.Location(nil), []int(nil)
	for i, name := range names {
		locations, order = append(locations, t.PoPs[name].Location), append(order, i)
	}
	demand := w.demands(w.predicted(locations), order)
	left, free, unnamed := 1.0, uint64(0), float64(len(names)-len(spec.Shares))
	copies := map[string]uint64{} // PoPs of one place share what is nearest to it
	sums := map[string]uint64{}
	for i, name := range names {
		key := placeKey(locations[i])
		if share, named := spec.Shares[name]; named {
			left -= share
			continue
		}
		copies[key]++
		sums[key] += demand[i]
		free += demand[i]
	}
	total := spec.Capacity * float64(w.Spec.Clients.Count) * w.Spec.Clients.Rate
	for i, name := range names {
		share, named := spec.Shares[name]
		if key := placeKey(locations[i]); !named && free > 0 {
			near := float64(sums[key]) / float64(free) / float64(copies[key])
			share = left * (float64(0.9*near) + float64(0.1/unnamed)) // nobody builds a PoP that can do nothing
		}
		t.PoPs[name].CapacityRPS = int(min(max(1, math.Ceil(float64(share*total)-1e-6)), math.MaxInt32))
	}
	return nil
}
