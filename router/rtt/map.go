package rtt

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Map holds measured round-trip times: for client prefixes, those to some PoPs. It is immutable and safe for concurrent use.
// A prefix may lie in another one; the longest one that holds a client counts, alone.
type Map struct {
	pops    []string
	addrs   []uint64 // first 64 bits of each prefix; an IPv4 address stands in the upper half. IPv4 comes first, then by address, the wider prefix first
	bits    []uint8
	v4      int      // how many are IPv4
	first   []uint32 // of each prefix, its first entry; with one more for the end
	entries []Entry
}

// Entry is what was measured between the clients of a prefix and one PoP.
type Entry struct {
	PoP          uint16 // number in Map.PoPs
	Samples      uint16 // at most 65535 are counted
	Microseconds uint32 // round-trip time
}

// Measurement is an entry by itself.
type Measurement struct {
	Prefix  netip.Prefix // at most 64 bits long
	PoP     string
	RTT     time.Duration // 0 to an hour
	Samples int           // at least 1
}

// longestRTT bounds measurements.
const longestRTT = time.Hour

// ErrInvalidMap is returned for measurements and encoded maps that cannot be used.
var ErrInvalidMap = errors.New("invalid RTT map")

// NewMap makes a map. Of several measurements between a prefix and a PoP, the mean by samples counts.
func NewMap(measurements []Measurement) (*Map, error) {
	m := &Map{first: []uint32{0}}
	numbers := map[string]uint16{}
	for _, x := range measurements {
		switch _, known := numbers[x.PoP]; {
		case !x.Prefix.IsValid() || x.Prefix.Masked() != x.Prefix || x.Prefix.Addr().Is4In6() || x.Prefix.Bits() > 64:
			return nil, fmt.Errorf("%w: %v is not a prefix of at most 64 bits in canonical form", ErrInvalidMap, x.Prefix)
		case x.RTT < 0 || x.RTT > longestRTT || x.Samples < 1:
			return nil, fmt.Errorf("%w: %v to %s: %v of %d samples is no measurement", ErrInvalidMap, x.Prefix, x.PoP, x.RTT, x.Samples)
		case !known && len(numbers) == 1<<16:
			return nil, fmt.Errorf("%w: more than 65536 PoPs", ErrInvalidMap)
		case !known:
			numbers[x.PoP] = 0
		}
	}
	for name := range numbers {
		m.pops = append(m.pops, name)
	}
	slices.Sort(m.pops)
	for i, name := range m.pops {
		numbers[name] = uint16(i)
	}
	order := slices.Clone(measurements)
	slices.SortFunc(order, func(a, b Measurement) int {
		return cmp.Or(comparePrefixes(a.Prefix, b.Prefix), cmp.Compare(numbers[a.PoP], numbers[b.PoP]))
	})
	for i := 0; i < len(order); {
		x, sum, samples := order[i], 0.0, 0
		for ; i < len(order) && order[i].Prefix == x.Prefix && order[i].PoP == x.PoP; i++ {
			sum += float64(order[i].RTT) * float64(order[i].Samples)
			samples += order[i].Samples
		}
		if n := len(m.addrs); n == 0 || m.Prefix(n-1) != x.Prefix {
			m.add(x.Prefix)
		}
		mean := time.Duration(sum / float64(samples))
		m.entries = append(m.entries, Entry{numbers[x.PoP], uint16(min(samples, 1<<16-1)), uint32(mean.Microseconds())})
		m.first[len(m.first)-1] = uint32(len(m.entries))
	}
	return m, nil
}

// add appends a prefix without entries.
func (m *Map) add(p netip.Prefix) {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		m.addrs = append(m.addrs, uint64(binary.BigEndian.Uint32(b[:]))<<32)
		m.v4++
	} else {
		b := p.Addr().As16()
		m.addrs = append(m.addrs, binary.BigEndian.Uint64(b[:8]))
	}
	m.bits = append(m.bits, uint8(p.Bits()))
	m.first = append(m.first, uint32(len(m.entries)))
}

// comparePrefixes orders IPv4 before IPv6, then by address, the wider prefix first.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()), a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// PoPs returns the names of the PoPs. The slice must not be changed.
func (m *Map) PoPs() []string { return m.pops }

// Len returns how many prefixes the map has. A nil map has none.
func (m *Map) Len() int {
	if m == nil {
		return 0
	}
	return len(m.addrs)
}

// Prefix returns the prefix of a number: IPv4 before IPv6, in the order of addresses, the wider one first.
func (m *Map) Prefix(i int) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], m.addrs[i])
	if i < m.v4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), int(m.bits[i]))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), int(m.bits[i]))
}

// Entries returns what was measured for a prefix, in the order of the PoPs. The slice must not be changed.
func (m *Map) Entries(i int) []Entry { return m.entries[m.first[i]:m.first[i+1]] }

// priorSamples is how many samples of a measurement the model's prediction is worth: it errs by 5 ms in the median, and one
// sample of a connection's round trip is about as far off.
const priorSamples = 4

// Merge returns the expected round-trip time of a prediction and a measurement, in microseconds: the mean of both, weighted by
// samples (shrinkage towards the prior; Efron and Morris, "Stein's Paradox in Statistics", 1977). Weight is that of the
// measurement, 0..1.
func Merge(predicted uint32, e Entry) (microseconds uint32, weight float64) {
	n := uint64(e.Samples)
	merged := (n*uint64(e.Microseconds) + priorSamples*uint64(predicted)) / (n + priorSamples)
	return uint32(merged), float64(n) / float64(n+priorSamples)
}
