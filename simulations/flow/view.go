package flow

import (
	"net/netip"
	"time"

	"github.com/isochrone/isochrone/simulations/world"
)

// most is how many choices an answer names at most.
const most = 4

// answer is what our servers answer an asker: choices, best first. Those from the number of PoPs upwards are VIPs.
type answer struct {
	choices [most]uint16
	n       uint8
	scope   uint8 // bits of the client's subnet for which it may be kept
}

// view is what our servers answer while nothing of it changes: an answer for each asker, and the cache entries that they make.
type view struct {
	from, until time.Duration // until counts once another view holds
	answers     []answer      // by asker
	group       []int32       // by asker: its cache entry, or -1 for clients' own resolvers
	count       int           // of cache entries
	machines    []float64     // by cache entry: caches that may have it
	first       []int32       // by cache entry: where its networks begin, with one more for the end
	networks    []int32
	hit         []float64 // by cache entry: the chance that a question is answered from it, as it was when the view held last
	layers      []layering
}

// layering is how a node of FastRoute answers: the parts of its questions that get the VIP of the second and of the third layer.
type layering struct{ second, third float64 }

// entries finds the cache entries of a view: one for each resolver, or for each resolver and scope (RFC 7871, section 7.3).
func (v *view) entries(g *ground, askers []asker, of []int32) {
	type entry struct {
		resolver int32
		addr     uint32
		bits     uint8
	}
	numbers, last, lastNumber := map[entry]int32{}, entry{resolver: -2}, int32(-1)
	v.group = resize(v.group, len(askers))
	v.machines = v.machines[:0]
	for i := range askers {
		a := &askers[i]
		if a.resolver == world.Own {
			v.group[i] = -1
			continue
		}
		e := entry{resolver: a.resolver}
		if a.ecs {
			// A scope that is longer than the question's prefix is cut to it (section 7.3.1).
			e.bits = min(v.answers[i].scope, uint8(a.client.Bits()))
			e.addr = number4(a.client.Addr()) >> (32 - e.bits) << (32 - e.bits)
			if e.bits == 0 {
				e.addr = 0
			}
		}
		if e != last {
			at, known := numbers[e]
			if !known {
				at = int32(len(v.machines))
				numbers[e] = at
				v.machines = append(v.machines, float64(g.resolvers[a.resolver].machines))
			}
			last, lastNumber = e, at
		}
		v.group[i] = lastNumber
	}
	v.count = len(v.machines)
	v.hit = resize(v.hit, v.count)
	v.members(of)
}

// members lists the networks of each cache entry, in their order.
func (v *view) members(of []int32) {
	v.first = resize(v.first, v.count+2)
	clear(v.first)
	for _, a := range of {
		if g := v.group[a]; g >= 0 {
			v.first[g+2]++
		}
	}
	for i := 2; i < len(v.first); i++ {
		v.first[i] += v.first[i-1]
	}
	v.networks = resize(v.networks, int(v.first[v.count+1]))
	for u, a := range of {
		if g := v.group[a]; g >= 0 {
			v.networks[v.first[g+1]] = int32(u)
			v.first[g+1]++
		}
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// merged finds scopes as gdnsd does: neighbouring networks are one as long as they have the same first three choices. Networks are those of
// askers with ECS, in the order of addresses; what lies between them is no neighbour.
func merged(askers []asker, same func(a, b int) bool, scope func(asker int, bits uint8)) {
	var ecs []int
	for i := range askers {
		if askers[i].ecs {
			ecs = append(ecs, i)
		}
	}
	for i := 0; i < len(ecs); {
		end := i + 1
		addr := func(k int) uint32 { return number4(askers[ecs[k]].client.Addr()) >> 8 }
		for end < len(ecs) && (addr(end)-addr(end-1) <= 1) && same(ecs[i], ecs[end]) {
			end++
		}
		low, high := addr(i), addr(end-1) // the run of /24
		for k := i; k < end; k++ {
			a, width := addr(k), 0
			for width < 24 {
				begin := a >> (width + 1) << (width + 1)
				if begin < low || begin+1<<(width+1)-1 > high {
					break
				}
				width++
			}
			scope(ecs[k], uint8(24-width))
		}
		i = end
	}
}
