package packet

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/isochrone/isochrone/topology"
)

// faults is what is broken in a world at present.
type faults struct {
	ground *ground

	mu         sync.RWMutex
	dead       map[netip.Addr]int   // how many events have it dead
	slow       map[netip.Addr]Fault // of what it sends; loss both ways
	partitions [][]string
}

// of is a Network's fault.
func (f *faults) of(from, to netip.Addr) (fault Fault) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.dead[from] > 0 || f.dead[to] > 0 {
		fault.Cut = true
	}
	if len(f.slow) > 0 {
		out, in := f.slow[from], f.slow[to]
		fault.Delay, fault.Loss = out.Delay, 1-(1-out.Loss)*(1-in.Loss)
	}
	for _, names := range f.partitions {
		if f.inside(from, names) != f.inside(to, names) {
			fault.Cut = true
		}
	}
	return fault
}

// inside reports whether what is at an address is in a part of the world that has been cut off: one of the PoPs and clusters, with what stands beside
// these, or anything on one of the continents.
func (f *faults) inside(at netip.Addr, names []string) bool {
	s := f.ground.stand(at)
	if s == nil {
		return false
	}
	return s.name != "" && slices.Contains(names, s.name) || slices.Contains(topology.Continents, s.continent) && slices.Contains(names, s.continent)
}

// kill has an address be dead, or not any more.
func (f *faults) kill(at netip.Addr, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead == nil {
		f.dead = map[netip.Addr]int{}
	}
	if dead {
		f.dead[at]++
	} else {
		f.dead[at]--
	}
}

func (f *faults) isDead(at netip.Addr) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.dead[at] > 0
}

// brown has an address be slow and lossy; the zero Fault ends that.
func (f *faults) brown(at netip.Addr, how Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.slow == nil {
		f.slow = map[netip.Addr]Fault{}
	}
	if f.slow[at] = how; how == (Fault{}) {
		delete(f.slow, at)
	}
}

// part cuts a part of the world off, or joins it again.
func (f *faults) part(names []string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cut {
		f.partitions = append(f.partitions, names)
		return
	}
	if i := slices.IndexFunc(f.partitions, func(p []string) bool { return slices.Equal(p, names) }); i >= 0 {
		f.partitions = slices.Delete(f.partitions, i, i+1)
	}
}
