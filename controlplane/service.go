package controlplane

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// Service does all Operations at the store, and answers from the view that the DNS server answers from. Its methods may be called
// concurrently. Writes have as their author who is asking: see WithIdentity.
type Service struct {
	View     func() *router.View       // current; nil before the first
	Snapshot func() *topology.Snapshot // newest; nil before the first
	Now      func() time.Time
	Store    *store.Store // nil: nothing can be read from it or written, which is ErrNotReady
	Auth     *Tokens      // nil: likewise

	Registrar *Registrar // of nodes that join; nil: none can be invited here

	// What may be nil: nothing is known of it.
	Verdicts func() health.Verdicts   // newest; those of the view are as they were when the last one changed
	Vantages func() []VantageStatus   // whose reports count here
	Alone    func() bool              // this process hears no other vantage, though there are some
	DNS      func() map[string]string // where DNS nodes answer, by name: address and port
	BGP      func() []AnnouncerStatus // what nodes announce
	Activity func() Activity
	Geo      func() GeoStatus
	Traffic  func() (perSecond float64, known bool)      // requests to all PoPs
	Leader   func() bool                                 // whether this process does the leader's tasks
	Alive    func(context.Context) ([]NodeStatus, error) // the nodes; Behind is filled in here
	Loads    func() map[string]spill.Load                // of the PoPs that tell, by name
	Spill    func() *SpillState                          // what the leader says of shares; nil for nothing yet

	foreseen foresight
	coloured colouring
	state    stateCache
}

var _ Operations = (*Service)(nil)

// Counts are totals since a component's start, by name.
type Counts map[string]uint64

// Activity is what the components of this process have done.
type Activity struct {
	DNS      Counts            `json:"dns"`
	PoPs     map[string]Counts `json:"pops"`
	Clusters map[string]Counts `json:"clusters"`
}

// GeoStatus tells what the geo database is.
type GeoStatus struct {
	Type            string    `json:"type"`
	Built           time.Time `json:"built"`
	CountryOnly     bool      `json:"country_only"`               // places are countries, not cities
	CoarseCountries []string  `json:"coarse_countries,omitempty"` // where a country is too coarse a place
}

// Whoami tells who is asking. The error is ErrUnauthorized when nobody has said.
func (s *Service) Whoami(ctx context.Context) (*Identity, error) {
	who, ok := IdentityOf(ctx)
	if !ok {
		return nil, ErrUnauthorized
	}
	return &who, nil
}

// Nodes lists the processes that are alive.
func (s *Service) Nodes(ctx context.Context) ([]NodeStatus, error) {
	if s.Alive == nil {
		return []NodeStatus{}, nil
	}
	nodes, err := s.Alive(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.Snapshot()
	for i := range nodes {
		// A node that has started since has read the same topology at a later revision.
		nodes[i].Behind = snap != nil && nodes[i].Good != snap.Good && nodes[i].Hash != snap.Hash
	}
	return nodes, nil
}

// behind counts the nodes in which another topology is in force.
func (s *Service) behind() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	nodes, err := s.Nodes(ctx)
	if err != nil {
		return 0
	}
	count := 0
	for _, n := range nodes {
		if n.Behind {
			count++
		}
	}
	return count
}

// store returns the store, or ErrNotReady when there is none.
func (s *Service) store() (*store.Store, error) {
	if s.Store == nil {
		return nil, fmt.Errorf("%w: there is no store", ErrNotReady)
	}
	return s.Store, nil
}

// snapshot returns the newest one, or reads it when nobody follows the store.
func (s *Service) snapshot(ctx context.Context) (*topology.Snapshot, error) {
	st, err := s.store()
	if err != nil {
		return nil, err
	}
	if snap := s.Snapshot(); snap != nil {
		return snap, nil
	}
	return st.Read(ctx)
}

// settle waits a moment until what was written is read here, so that who writes and then looks sees it.
func (s *Service) settle(ctx context.Context, revision int64) {
	deadline, look := time.After(settleTime), time.NewTicker(settleTime/500)
	defer look.Stop()
	for {
		if snap := s.Snapshot(); snap == nil || snap.Revision >= revision {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

// settleTime bounds how long a write waits until it is read here.
const settleTime = time.Second

// parseClient reads an address or a prefix.
func parseClient(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: client %q is neither an address such as 203.0.113.7 nor a prefix such as 203.0.113.0/24", ErrInvalid, text)
	}
	return prefix.Masked(), nil
}
