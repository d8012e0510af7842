package bgp

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// maxPassword bounds a TCP MD5 key, in bytes, as Linux has it.
const maxPassword = 80

// Plan is what is announced, and to whom. It is not changed once it was given. Without BGP nothing is announced.
type Plan struct {
	BGP      *topology.BGP // valid, as package topology checks it
	RouterID netip.Addr
	Prefixes []netip.Prefix
}

// Config is what a Speaker needs. Functions are called by one goroutine, several times a second, and must be quick.
type Config struct {
	Node     string                           // the name by which other nodes know this one
	Plan     func() Plan                      // as it is now
	Inputs   func() Inputs                    // as they are now; Now is filled in
	Password func(peer string) (string, bool) // of a peer with MD5
	Told     func(map[netip.Prefix]Standing)  // is given what the other nodes are to hear, whenever it changes; nil for nobody
	Log      *slog.Logger                     // never gets a password
	Interval time.Duration                    // between two decisions; default 100 ms
	Settings func(*topology.BGP) Settings     // nil: as the plan says
}

// Speaker announces a node's prefixes. Status is safe for concurrent use.
type Speaker struct {
	config   Config
	machines map[netip.Prefix]*Machine
	plan     Plan              // in force
	routers  *routers          // nil for none
	faults   map[string]string // of peers, by name
	told     map[netip.Prefix]Standing
	sessions []Session
	looked   time.Time // at the sessions

	status  atomic.Pointer[Status]
	changed [len(actions)]atomic.Uint64 // decisions to do something else, by what was decided
	hurry   chan struct{}
	hurried sync.Once
}

// New returns a speaker that does nothing until Run.
func New(c Config) *Speaker {
	c.Interval = cmp.Or(c.Interval, 100*time.Millisecond)
	s := &Speaker{config: c, machines: map[netip.Prefix]*Machine{}, told: map[netip.Prefix]Standing{}, hurry: make(chan struct{})}
	s.status.Store(&Status{})
	return s
}

// Hurry has Run end without draining: another process of this node takes over.
func (s *Speaker) Hurry() { s.hurried.Do(func() { close(s.hurry) }) }

// maxEnding bounds how long Run drains once its context has ended: what manages processes waits not much longer.
const maxEnding = 15 * time.Second

// Run announces until ctx ends; then it drains, for at most 15 s, withdraws all prefixes, ends the sessions, and returns the context's error. A
// process that ends in another way ends its sessions too: there is no graceful restart (RFC 4724), by which routers would keep its routes.
func (s *Speaker) Run(ctx context.Context) error {
	defer func() {
		if s.routers != nil {
			s.routers.stop()
		}
	}()
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	ending, late := ctx.Done(), (<-chan time.Time)(nil)
	for {
		left := s.step(time.Now(), ending == nil)
		if ending == nil && left {
			return ctx.Err()
		}
		select {
		case <-tick.C:
		case <-ending:
			ending, late = nil, time.After(maxEnding)
		case <-late:
			return ctx.Err()
		case <-s.hurry:
			<-ctx.Done()
			return ctx.Err()
		}
	}
}

// step decides and acts once, and reports whether nothing is announced.
func (s *Speaker) step(now time.Time, ending bool) (left bool) {
	plan := s.config.Plan()
	s.follow(plan)
	in := s.config.Inputs()
	in.Now = now
	if ending {
		in.Operator, in.Why = MustGo, "this process ends"
	}
	left = true
	stands := map[netip.Prefix]Standing{}
	var list []PrefixStatus
	for _, prefix := range slices.SortedFunc(maps.Keys(s.machines), comparePrefixes) {
		mine := in
		gone := plan.BGP == nil || !slices.Contains(plan.Prefixes, prefix)
		if gone {
			mine.Operator, mine.Why = MustGo, "it is not to be announced any more"
		}
		m := s.machines[prefix]
		before := m.last
		d := m.Decide(mine)
		s.act(prefix, d, before)
		stands[prefix] = d.Standing
		left = left && d.Action == Withdraw
		if gone && d.Action == Withdraw {
			delete(s.machines, prefix)
			continue
		}
		list = append(list, PrefixStatus{Prefix: prefix, Action: d.Action, Reason: d.Reason, Since: d.Since, Held: d.Held, Standing: d.Standing})
	}
	if s.config.Told != nil && !maps.Equal(stands, s.told) {
		s.config.Told(maps.Clone(stands))
	}
	s.told = stands
	s.look(now)
	s.status.Store(&Status{Node: s.config.Node, Prefixes: list, Sessions: s.sessions})
	return left
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// follow takes a plan, with sessions for it. A plan without BGP leaves them until all prefixes are withdrawn.
func (s *Speaker) follow(plan Plan) {
	if plan.BGP == nil {
		if len(s.machines) == 0 && s.routers != nil {
			s.routers.stop()
			s.routers, s.sessions, s.faults, s.plan = nil, nil, nil, Plan{}
		}
		return
	}
	settings := s.settingsOf(plan.BGP)
	for _, m := range s.machines {
		m.settings = settings.withDefaults()
	}
	for _, prefix := range plan.Prefixes {
		if s.machines[prefix] == nil {
			s.machines[prefix] = NewMachine(s.config.Node, prefix, settings)
		}
	}
	if s.routers != nil && !s.routers.fits(plan) {
		s.config.Log.Warn("all BGP sessions begin anew, since the own AS, the router id or what is listened at has changed")
		s.routers.stop()
		s.routers = nil
	}
	if s.plan = plan; s.routers == nil {
		routers, err := openRouters(plan, s.config.Log)
		if err != nil {
			if s.faults == nil {
				s.config.Log.Error("nothing can be announced by BGP", "error", err)
			}
			s.faults = map[string]string{"": err.Error()}
			return
		}
		s.routers = routers
	}
	faults := s.routers.follow(plan, s.config.Password)
	for name, fault := range faults {
		if s.faults[name] != fault {
			s.config.Log.Error("there is no BGP session with a peer", "peer", name, "reason", fault)
		}
	}
	s.faults = faults
}

func (s *Speaker) settingsOf(b *topology.BGP) Settings {
	if s.config.Settings != nil {
		return s.config.Settings(b)
	}
	return Settings{MinAnnouncers: *b.MinAnnouncers, Drain: time.Duration(b.Drain), Rise: time.Duration(b.Rise)}
}

// act has the routers told what was decided.
func (s *Speaker) act(prefix netip.Prefix, d, before Decision) {
	if s.routers == nil {
		return
	}
	if d.Action != before.Action {
		s.changed[slices.Index(actions[:], d.Action)].Add(1)
	}
	if d.Action != before.Action || d.Held != before.Held {
		level := slog.LevelInfo
		if d.Action != Announce {
			level = slog.LevelWarn
		}
		if before.Since.IsZero() && d.Action == Withdraw { // the beginning
			level = slog.LevelDebug
		}
		s.config.Log.Log(context.Background(), level, "BGP", "prefix", prefix, "action", string(d.Action), "reason", d.Reason)
	}
	err := error(nil)
	if d.Action == Withdraw {
		err = s.routers.tell(prefix, nil)
	} else if path, pathErr := pathOf(prefix, s.plan.BGP, d.Action == Drain); pathErr == nil {
		err = s.routers.tell(prefix, path)
	} else {
		err = pathErr
	}
	if err != nil {
		s.config.Log.Error("the BGP table does not take what was decided", "prefix", prefix, "action", string(d.Action), "error", err)
	}
}
