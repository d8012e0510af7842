package packet

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// store is etcd as nodes see it, by a model: it is one machine beside the first cluster. What changes is sent to all nodes at once; each node speaks to
// it every second, by which its lease holds, and what was lost is mended. The topology, overrides and keys are a snapshot; reports are text.
type store struct {
	network *Network
	at      netip.Addr

	mu       sync.Mutex
	snapshot *topology.Snapshot
	reports  map[string][]byte // immutable; replaced when something changes
	leases   map[string]time.Time
	away     bool
	members  []*member
}

// member is one node's side of the store.
type member struct {
	store *store
	name  string
	at    netip.Addr
	hear  func(*topology.Snapshot, map[string][]byte) // in order; it does not wait

	mu      sync.Mutex
	report  []byte // that the node wants stored; nil for none
	contact time.Time
	heard   int64 // the number of what was heard last
	numbers int64
}

const (
	keepAlive = time.Second      // between two signs of life of a node to the store
	leaseTime = 10 * time.Second // as package topology/store has it
	message   = 600              // octets of what is said to the store or by it
)

func newStore(n *Network, at netip.Addr, snap *topology.Snapshot) *store {
	return &store{network: n, at: at, snapshot: snap, reports: map[string][]byte{}, leases: map[string]time.Time{}}
}

// join adds a node, and tells it at once what there is.
func (s *store) join(name string, at netip.Addr, hear func(*topology.Snapshot, map[string][]byte)) *member {
	m := &member{store: s, name: name, at: at, hear: hear, contact: time.Now()}
	s.mu.Lock()
	s.members = append(s.members, m)
	snap, reports := s.snapshot, s.reports
	s.mu.Unlock()
	hear(snap, reports)
	return m
}

// put has a report stored.
func (m *member) put(report []byte) {
	m.mu.Lock()
	m.report = report
	m.mu.Unlock()
	m.speak()
}

// speak sends a sign of life, with what is to be stored. It is answered.
func (m *member) speak() {
	m.mu.Lock()
	report := m.report
	m.mu.Unlock()
	_ = m.store.network.carry(m.at, m.store.at, message, false, func() { m.store.take(m, report) })
}

// age is how long the store has not been heard.
func (m *member) age() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.contact)
}

// take takes what a node says.
func (s *store) take(m *member, report []byte) {
	s.mu.Lock()
	if s.away {
		s.mu.Unlock()
		return
	}
	s.leases[m.name] = time.Now()
	changed := report != nil && string(s.reports[m.name]) != string(report)
	if changed {
		s.reports = maps.Clone(s.reports)
		s.reports[m.name] = report
	}
	s.mu.Unlock()
	if changed {
		s.tellAll()
	} else {
		s.tell(m)
	}
}

// expire drops the reports of those that were not heard for the time of a lease.
func (s *store) expire() {
	s.mu.Lock()
	gone := 0
	for name, last := range s.leases {
		if !s.away && time.Since(last) > leaseTime {
			delete(s.leases, name)
			if gone++; gone == 1 {
				s.reports = maps.Clone(s.reports)
			}
			delete(s.reports, name)
		}
	}
	s.mu.Unlock()
	if gone > 0 {
		s.tellAll()
	}
}

// leave has the store be away, or back: leases hold as if no time had passed (etcd extends them when a leader is elected).
func (s *store) leave(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	for name := range s.leases {
		s.leases[name] = time.Now()
	}
}

// apply replaces the snapshot by what change makes of it.
func (s *store) apply(change func(*topology.Snapshot) (*topology.Snapshot, error)) error {
	s.mu.Lock()
	snap, err := change(s.snapshot)
	if err == nil {
		s.snapshot = snap
	}
	s.mu.Unlock()
	if err == nil {
		s.tellAll()
	}
	return err
}

func (s *store) tellAll() {
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	for _, m := range members {
		s.tell(m)
	}
}

// tell sends a node all there is.
func (s *store) tell(m *member) {
	s.mu.Lock()
	snap, reports := s.snapshot, s.reports
	s.mu.Unlock()
	m.mu.Lock()
	m.numbers++
	number := m.numbers
	m.mu.Unlock()
	_ = s.network.carry(s.at, m.at, message, false, func() {
		m.mu.Lock()
		m.contact = time.Now()
		newer := number > m.heard
		m.heard = max(m.heard, number)
		m.mu.Unlock()
		if newer {
			m.hear(snap, reports)
		}
	})
}

// first returns the snapshot that there is at the beginning, for nodes that do not follow the store.
func (s *store) first() *topology.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}
