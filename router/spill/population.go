package spill

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// Demand is what the clients of a prefix ask of a service.
type Demand struct {
	Service  router.ServiceID
	Client   netip.Prefix
	RPS      float64
	Resolver bool // it is one resolver's address, whose clients cannot be divided
}

// maxCrowds is how many crowds there are at the most, besides resolvers: those that differ in distant choices alone are taken together until it
// is so, as far as their first four choices allow.
const maxCrowds = 4000

// Population is the clients of a table in crowds that rank PoPs alike.
type Population struct {
	table  *router.Table
	crowds []crowd
}

// crowd is clients who rank PoPs alike.
type crowd struct {
	leading  Leading
	order    []router.Choice
	ms       []float64 // of each choice of the order
	weight   float64   // requests a second
	region   int
	answers  int
	steady   bool       // its services do not spill
	resolver netip.Addr // whose bucket all of it is in; invalid for many
}

// depths are by how many leading choices crowds are told apart, from fine to coarse.
var depths = [...]int{8, 6, 5, 4}

// NewPopulation makes crowds of what clients ask for.
func NewPopulation(t *router.Table, demand []Demand) *Population {
	demand = slices.Clone(demand)
	location := make(map[netip.Addr]uint32, len(demand))
	for _, d := range demand {
		location[d.Client.Addr()], _ = t.Location(d.Client.Addr())
	}
	slices.SortStableFunc(demand, func(a, b Demand) int { // neighbours' round-trip times are found together
		return cmp.Or(cmp.Compare(location[a.Client.Addr()], location[b.Client.Addr()]), a.Client.Compare(b.Client), cmp.Compare(a.Service, b.Service))
	})
	p, m := &Population{table: t}, newMerger(t)
	meter := t.Meter()
	for _, d := range demand {
		client := d.Client.Addr()
		family := router.IPv4
		if client.Is6() {
			family = router.IPv6
		}
		_, service := t.ServiceByID(d.Service)
		for _, o := range t.Orders(d.Service, family, client) {
			c := crowd{
				leading: o.Leading, order: o.Choices, weight: max(d.RPS, 0) * o.Part, region: t.Region(client), answers: max(service.Steering.Answers, 1),
				steady: service.Steering.Spill != nil && service.Steering.Spill.Off, ms: make([]float64, len(o.Choices)),
			}
			for i, choice := range c.order {
				c.ms[i] = meter.Milliseconds(client, choice)
			}
			if d.Resolver {
				c.resolver = client
				p.crowds = append(p.crowds, c)
				continue
			}
			m.add(&c)
		}
	}
	p.crowds = append(p.crowds, m.merged()...)
	return p
}

// merger puts crowds together that are alike.
type merger struct {
	table  *router.Table
	crowds []crowd
	index  map[string]int
	sums   []sums // of the crowds
}

// sums are weighted by requests.
type sums struct {
	weight   float64
	rank, ms []float64 // by choice
}

func newMerger(t *router.Table) *merger { return &merger{table: t, index: map[string]int{}} }

// key is equal for crowds that are alike up to a depth.
func (c *crowd) key(depth int) string {
	key := make([]byte, 0, 64)
	for _, choice := range c.order[:min(depth, len(c.order))] {
		key = binary.BigEndian.AppendUint16(key, uint16(choice))
	}
	set := uint64(0) // rules leave clients of one order different choices
	for _, choice := range c.order {
		x := (uint64(choice) + 1) * 0x9e3779b97f4a7c15
		set += x ^ x>>29
	}
	key = binary.BigEndian.AppendUint64(append(key, 0xff, 0xff, byte(c.region), byte(c.answers)), set)
	if c.steady {
		key = append(key, 1)
	}
	for _, name := range c.leading {
		key = append(append(key, name...), 0)
	}
	return string(key)
}

func (m *merger) add(c *crowd) { m.addAt(c, depths[0]) }

func (m *merger) addAt(c *crowd, depth int) {
	key := c.key(depth)
	at, known := m.index[key]
	if !known {
		at = len(m.crowds)
		m.index[key] = at
		first := *c
		first.weight = 0
		m.crowds = append(m.crowds, first)
		m.sums = append(m.sums, sums{0, make([]float64, m.table.Choices()), make([]float64, m.table.Choices())})
	}
	weight := c.weight + 1e-12 // where nobody asks, all count alike
	s := &m.sums[at]
	m.crowds[at].weight += c.weight
	s.weight += weight
	for i, choice := range c.order {
		s.rank[choice] += weight * float64(i)
		s.ms[choice] += weight * c.ms[i]
	}
}

// merged returns the crowds, few enough of them if that can be.
func (m *merger) merged() []crowd {
	for _, depth := range depths[1:] {
		if len(m.crowds) <= maxCrowds {
			break
		}
		coarser := newMerger(m.table)
		for _, c := range m.means() {
			coarser.addAt(&c, depth)
		}
		m = coarser
	}
	return m.means()
}

// means returns the crowds with their mean order and mean round-trip times.
func (m *merger) means() []crowd {
	for i := range m.crowds {
		c, s := &m.crowds[i], &m.sums[i]
		c.order = slices.Clone(c.order)
		slices.SortStableFunc(c.order, func(a, b router.Choice) int { return cmp.Compare(s.rank[a], s.rank[b]) })
		c.ms = make([]float64, len(c.order))
		for j, choice := range c.order {
			c.ms[j] = s.ms[choice] / s.weight
		}
	}
	return m.crowds
}
