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
	Name   string        // as nodes are named, such as pop:sin1
	Region string        // the continent's code, or empty
	Looks  []health.Kind // at what kinds of target; none for all
	// Targets returns what there is to look at, in any order. It is called about once a second.
	Targets func() []health.Target
	// Probe looks at a target once, for no longer than until its context ends.
	Probe func(ctx context.Context, t health.Target) health.Observation
	// Publish tells others what this node has to say. It is called in order, whenever that has changed. Nearby are the vantages that look at a
	// target of which there is news: they are to hear of it at once. Lasting is false while there is no more than a suspicion that has come or gone,
	// which need not be stored. It does not wait.
	Publish func(r *health.Report, nearby []string, lasting bool)
	// Judged is called in order with what the node makes of all reports, whenever it has made it anew. It does not wait for long.
	Judged func(health.Judgement)
	// Describe, if it is not nil, adds to a report what else is to be known of the node: key, addresses, what it cannot do.
	Describe func(*health.Report)
	Before   health.Verdicts  // of the process that this one replaces, or of the last that ran here
	Known    []string         // vantages that were known to it
	Clock    func() time.Time // the wall clock, by which turns are taken where no DNS node's is known; default time.Now
	Log      *slog.Logger
	Health   health.Thresholds
}

const (
	// DirectPatience is how long a vantage counts as alive that was heard of directly alone.
	DirectPatience = 5 * time.Second
	// review is how often time alone is asked for news.
	review = 250 * time.Millisecond
	// restate is how often all verdicts are made anew, though nothing has come: so that it shows that they still hold.
	restate = 5 * time.Second
	// settling is how long what has come waits for more before verdicts are made anew.
	settling = 20 * time.Millisecond
	// maxProbes is how many probes a node makes at once. Others wait.
	maxProbes = 256
)

// Node is a vantage. It is safe for concurrent use.
type Node struct {
	config  Config
	probes  chan struct{}
	wake    chan struct{} // something may be due
	running sync.WaitGroup

	mu        sync.Mutex
	watcher   *health.Watcher
	began     time.Time
	sequence  uint64
	degraded  string
	ahead     time.Duration  // of this node's wall clock, the common one, by which turns are taken
	unsaid    time.Time      // since when the store does not know of a suspicion that has come or gone; zero when it knows all
	said      *health.Report // the newest of this node's own
	heard     map[string]*heard
	known     map[string]bool // vantages that there are, heard or not
	store     bool            // the store can be read: it tells who is alive
	targets   map[health.Target]*target
	vantages  []health.Vantage // that are alive, this one too, by name
	judgement health.Judgement
	judged    time.Time              // when that was made
	dirty     map[health.Target]bool // of whom something has come since
	all       bool                   // of all targets
	counts    Counts
}

// Counts are what a node has done.
type Counts struct {
	Probes, Failures, Bursts, Reports, Judgements uint64
}

// heard is what was heard of another vantage.
type heard struct {
	report  *health.Report
	came    time.Time     // the report, by this node's clock
	stored  bool          // its report is in the store, so its lease holds
	sign    time.Time     // of life, directly; zero for none
	ahead   time.Duration // of this node's wall clock, when the sign came
	clocked bool
}

// target is a target of this node, or one that may become one.
type target struct {
	turns   []health.Vantage
	turn    int
	mine    bool
	due     time.Time // the next probe
	burst   time.Time // the last one
	probing bool
	urgent  bool // probe at once, and count a failure as confirmed
	number  int  // of the probe
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
	n := &Node{
		config: c, probes: make(chan struct{}, maxProbes), wake: make(chan struct{}, 1), watcher: health.NewWatcher(c.Health),
		heard: map[string]*heard{}, known: map[string]bool{}, targets: map[health.Target]*target{}, store: true, dirty: map[health.Target]bool{},
		judgement: health.Judgement{Verdicts: c.Before},
	}
	for _, name := range c.Known {
		n.known[name] = name != c.Name
	}
	return n
}

// Run looks at targets until ctx ends, whose error it returns. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	defer n.running.Wait()
	n.mu.Lock()
	n.began = time.Now()
	n.mu.Unlock()
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
			n.review(reviews%int(restate/review) == 0)
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

// refresh takes the present targets, and shares them out anew.
func (n *Node) refresh() {
	current := n.config.Targets()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ahead = n.commonClock(time.Now())
	there := make(map[health.Target]bool, len(current))
	changed := false
	for _, t := range current {
		there[t] = true
		if n.targets[t] == nil {
			n.targets[t], changed = &target{}, true
		}
	}
	for t := range n.targets {
		if !there[t] {
			delete(n.targets, t)
			changed = true
		}
	}
	if changed {
		n.assign()
		n.allNews()
	}
}

// assign shares the targets out among the vantages that are alive. What is not this node's any more it says nothing about.
func (n *Node) assign() {
	now := time.Now()
	n.vantages = []health.Vantage{{Name: n.config.Name, Region: n.config.Region, Looks: n.config.Looks}}
	for name, h := range n.heard {
		if n.alive(h, now) {
			n.vantages = append(n.vantages, health.Vantage{Name: name, Region: h.report.Region, Looks: h.report.Looks})
		}
	}
	slices.SortFunc(n.vantages, func(a, b health.Vantage) int { return compare(a.Name, b.Name) })
	for t, mine := range n.targets {
		mine.turns = health.Assign(t, n.vantages)
		var of int
		if mine.turn, of, mine.mine = health.Turn(n.config.Name, mine.turns); mine.mine {
			mine.due = n.next(t, mine.turn, of, now)
			if n.watcher.Status(t) == health.Unknown {
				mine.due = now // whatever it is, it is to be known soon
			}
		}
	}
	if n.watcher.Retain(func(t health.Target) bool { return n.targets[t] != nil && n.targets[t].mine }) {
		n.publish(nil, true)
	}
}

// next returns when a target is due, by this process's clock.
func (n *Node) next(t health.Target, turn, of int, now time.Time) time.Time {
	wall := n.config.Clock().Add(n.ahead)
	return now.Add(health.Next(t, turn, of, wall).Sub(wall))
}

// commonClock returns how far ahead of this node's wall clock the common one is: the median of the DNS nodes', which are heard by all.
func (n *Node) commonClock(now time.Time) time.Duration {
	var ahead []time.Duration
	if strings.HasPrefix(n.config.Name, dnsPrefix) {
		ahead = append(ahead, 0)
	}
	for name, h := range n.heard {
		if h.clocked && strings.HasPrefix(name, dnsPrefix) && now.Sub(h.sign) < DirectPatience {
			ahead = append(ahead, h.ahead)
		}
	}
	if len(ahead) == 0 {
		return 0
	}
	slices.Sort(ahead)
	return (ahead[(len(ahead)-1)/2] + ahead[len(ahead)/2]) / 2
}

const dnsPrefix = string(health.DNS) + ":"

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// alive reports whether a vantage counts: its report is in a store that can be read, or it was heard of directly.
func (n *Node) alive(h *heard, now time.Time) bool {
	return h.report != nil && (h.stored && n.store || now.Sub(h.sign) < DirectPatience)
}

// Judgement returns what the node makes of all reports. It must not be changed.
func (n *Node) Judgement() health.Judgement {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.judgement
}

// Reports returns the reports of all vantages that are alive, this one's too. They must not be changed.
func (n *Node) Reports() map[string]*health.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	reports, _ := n.reports(time.Now())
	return reports
}

// Report returns what this node says, nil before it has said anything.
func (n *Node) Report() *health.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said
}

// Counts returns what the node has done.
func (n *Node) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Known returns the vantages that there are, heard or not, for who runs here next.
func (n *Node) Known() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.known))
}

// Alone reports whether there are other vantages, of which this node hears none: it sees with its own eyes only.
func (n *Node) Alone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.silent()
}

func (n *Node) silent() bool { return len(n.vantages) < 2 && len(n.known) > 0 }
