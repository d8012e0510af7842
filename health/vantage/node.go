package vantage

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
)

// Config says what a node needs.
type Config struct {
	health.Vantage
	// Targets returns what there is to look at, in any order. It is called about once a second.
	Targets func() []health.Target
	// Probe looks at a target once, for no longer than until its context ends.
	Probe func(ctx context.Context, t health.Target) health.Observation
	// Publish tells others what this node has to say, all of it. It is called in order, whenever that has changed. Nearby are the vantages that look
	// at a target of which there is news: they are to hear of it at once. Lasting is false while no more than a suspicion has come or gone, which
	// need not be stored. It does not wait, and must not call methods of the Node.
	Publish func(r *health.Report, nearby []string, lasting bool)
	// Judged is called in order with what the node makes of all reports, whenever it has made it anew. It does not wait for long, and must not call
	// methods of the Node.
	Judged   func(health.Judgement)
	Describe func(*health.Report) // adds to a report what else is to be known of the node; nil for nothing
	Before   health.Verdicts      // of the process that this one replaces
	Known    []health.Vantage     // that were known to the last that ran here
	// Incarnation is larger than those of all that ran before, in nanoseconds since 1970; default the time of New.
	Incarnation int64
	Clock       func() time.Time // the wall clock, by which turns are taken where no DNS node's is known; default time.Now
	Log         *slog.Logger
}

const (
	// DirectPatience is how long a vantage counts as alive that was heard of directly alone.
	DirectPatience = 5 * time.Second
	// review is how often time alone is asked for news.
	review = 250 * time.Millisecond
	// restate is how often all verdicts are made anew though nothing has come: so that it shows that they still hold.
	restate = 5 * time.Second
	// settling is how long what has come waits for more before verdicts are made anew.
	settling = 20 * time.Millisecond
	// lastingAfter is how old a suspicion, or its end, is at most before the store is told of it.
	lastingAfter = time.Second
	// sharing is the time between two times that targets are shared out among vantages, at least.
	sharing = 100 * time.Millisecond
	// SilentPatience is for how long a vantage that is not heard counts as one that there is, and storelessPatience while the store cannot be read:
	// then it may be that none of its words comes.
	SilentPatience, storelessPatience = time.Hour, 7 * 24 * time.Hour
	// maxKnown is how many other vantages a node knows, at most. When there are more, those that are silent give way.
	maxKnown = 2000
	// maxProbes is how many probes a node makes at once. Others wait.
	maxProbes = 256
)

// Node is a vantage. It is safe for concurrent use.
type Node struct {
	config  Config
	probes  chan struct{}
	wake    chan struct{} // something may be due
	running sync.WaitGroup

	mu       sync.Mutex
	watcher  *health.Watcher
	schedule *health.Schedule
	ledger   *health.Ledger
	signs    map[string]*signs
	known    map[string]health.Vantage // that there are, heard or not; not this one
	store    bool                      // the store can be read: it tells who is alive
	targets  []health.Target
	vantages []health.Vantage            // that share the targets, this one too, by name
	shared   time.Time                   // when they did last
	stale    bool                        // others share them now
	traffic  map[health.Target]time.Time // when clients' requests last had a target probed

	// incarnation is when the node began, in nanoseconds since 1970, or more if one of its name has been later than that.
	incarnation int64
	outlived    bool // the latter
	namesake    namesake
	contested   bool      // the store has its report in place of this node's
	insisted    time.Time // when this one last said all anew because of that
	sequence    uint64
	self        health.Self
	hosts       []health.Hosted
	ahead       time.Duration // of this node's wall clock, the common one
	unsaid      time.Time     // since when the store does not know of a suspicion that has come or gone; zero when it knows all
	reviewed    time.Time
	judgement   health.Judgement
	judged      time.Time // when that was made
	news        bool      // something has come since
	counts      Counts
}

// Counts are what a node has done.
type Counts struct {
	Probes, Failures, Bursts, Reports, Judgements uint64
}

// signs are those of the life of another vantage.
type signs struct {
	silent  time.Time     // since when it has not been alive; zero while it is
	stored  bool          // its report is in the store, so its lease holds
	direct  time.Time     // when it was heard directly; zero for never
	ahead   time.Duration // its wall clock of this node's, when it was
	clocked bool
	counts  bool // it was alive when that was last reviewed
}

// New returns a node, which does nothing until it runs.
func New(c Config) *Node {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Publish == nil {
		c.Publish = func(*health.Report, []string, bool) {}
	}
	if c.Incarnation == 0 {
		c.Incarnation = time.Now().UnixNano()
	}
	n := &Node{
		config: c, probes: make(chan struct{}, maxProbes), wake: make(chan struct{}, 1),
		watcher: health.NewWatcher(health.Thresholds{}, health.Damping{}), schedule: health.NewSchedule(c.Name, health.Timing{}), ledger: health.NewLedger(),
		signs: map[string]*signs{}, known: map[string]health.Vantage{}, store: true, incarnation: c.Incarnation, traffic: map[health.Target]time.Time{}, judgement: health.Judgement{Verdicts: c.Before},
	}
	for _, v := range c.Known {
		if v.Name != c.Name {
			n.known[v.Name] = v
		}
	}
	return n
}

// Run looks at targets until ctx ends, whose error it returns. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	defer n.running.Wait()
	n.refresh()
	look := time.NewTicker(review)
	defer look.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for reviews := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if reviews++; reviews%int(time.Second/review) == 0 {
				n.refresh()
			}
			n.review(reviews)
		case <-n.wake:
		case <-timer.C:
		}
		next := n.start(ctx)
		if again := n.judgeIfDue(); next.IsZero() || !again.IsZero() && again.Before(next) {
			next = again
		}
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		}
	}
}

// nudge has Run see what is due.
func (n *Node) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// refresh takes the present targets, and the common clock.
func (n *Node) refresh() {
	current := n.config.Targets()
	slices.SortFunc(current, func(a, b health.Target) int { return strings.Compare(a.String(), b.String()) })
	n.mu.Lock()
	defer n.mu.Unlock()
	ahead := n.commonClock(time.Now())
	if changed := !slices.Equal(current, n.targets); changed || n.vantages == nil {
		n.targets = current
		n.assign()
		n.anew()
	}
	n.ahead = ahead
}

// present returns the vantages that share the targets, by name: those that are alive. While the store is away from a node that hears others, those
// that were there last share them too: PoPs do not hear each other directly, and all of them would look at everything.
func (n *Node) present(now time.Time) []health.Vantage {
	present, alone := []health.Vantage{n.config.Vantage}, n.alone()
	for name, v := range n.known {
		if s := n.signs[name]; n.alive(name, now) || s != nil && s.stored && !n.store && !alone {
			present = append(present, v)
		}
	}
	slices.SortFunc(present, func(a, b health.Vantage) int { return strings.Compare(a.Name, b.Name) })
	return present
}

// assign shares the targets out among the vantages that are present. What is not this node's any more it says nothing about.
func (n *Node) assign() {
	now := time.Now()
	n.vantages, n.shared, n.stale = n.present(now), now, false
	n.schedule.Assign(n.targets, n.vantages, n.wall(now))
	maps.DeleteFunc(n.traffic, func(t health.Target, _ time.Time) bool { return !n.schedule.Assigned(t) })
	if n.watcher.Retain(n.schedule.Assigned) {
		n.publish(nil, true)
	}
}

// wall returns a time by the common clock, and local one by this process's.
func (n *Node) wall(t time.Time) time.Time {
	now := time.Now()
	return t.Add(n.config.Clock().Sub(now) + n.ahead).Round(0)
}

func (n *Node) local(wall time.Time) time.Time {
	return time.Now().Add(wall.Sub(n.wall(time.Now())))
}

// commonClock returns how far ahead of this node's wall clock the common one is: the median of the DNS nodes', which are heard by all.
func (n *Node) commonClock(now time.Time) time.Duration {
	var ahead []time.Duration
	if strings.HasPrefix(n.config.Name, dnsPrefix) {
		ahead = append(ahead, 0)
	}
	for name, s := range n.signs {
		if s.clocked && strings.HasPrefix(name, dnsPrefix) && now.Sub(s.direct) < DirectPatience {
			ahead = append(ahead, s.ahead)
		}
	}
	if len(ahead) == 0 {
		return 0
	}
	slices.Sort(ahead)
	return (ahead[(len(ahead)-1)/2] + ahead[len(ahead)/2]) / 2
}

const dnsPrefix = string(health.DNS) + ":"

// alive reports whether a vantage counts: its report is in a store that can be read, or it was heard of directly.
func (n *Node) alive(name string, now time.Time) bool {
	s := n.signs[name]
	return s != nil && (s.stored && n.store || !s.direct.IsZero() && now.Sub(s.direct) < DirectPatience)
}

// Judgement returns what the node makes of all reports. It must not be changed.
func (n *Node) Judgement() health.Judgement {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.judgement
}

// Reports returns the reports of all vantages that are alive, and of this one. They must not be changed.
func (n *Node) Reports() []*health.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reports(time.Now())
}

// Counts returns what the node has done.
func (n *Node) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Known returns the vantages that there are, heard or not, but for this one, by name.
func (n *Node) Known() []health.Vantage {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.known), func(a, b health.Vantage) int { return strings.Compare(a.Name, b.Name) })
}

// Heard returns the names of the other vantages that are alive.
func (n *Node) Heard() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var heard []string
	now := time.Now()
	for name := range n.known {
		if n.alive(name, now) {
			heard = append(heard, name)
		}
	}
	return heard
}

// Alone reports whether there are other vantages, of which this node hears none: it sees with its own eyes only.
func (n *Node) Alone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alone()
}

func (n *Node) alone() bool {
	now := time.Now()
	for name := range n.known {
		if n.alive(name, now) {
			return false
		}
	}
	return len(n.known) > 0
}
