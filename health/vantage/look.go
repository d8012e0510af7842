package vantage

import (
	"context"
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
)

// start starts the probes that are due, and returns when the next one is; zero for none.
func (n *Node) start(ctx context.Context) (next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stale && time.Since(n.shared) >= sharing {
		n.assign()
		n.anew()
	}
	due, again := n.schedule.Due(n.wall(time.Now()))
	for _, t := range due {
		n.counts.Probes++
		timeout, late := n.watcher.Timeout(t), n.watcher.LateAfter(t)
		n.running.Go(func() { n.probe(ctx, t, timeout, late) })
	}
	if !again.IsZero() {
		next = n.local(again)
	}
	if shared := n.shared.Add(sharing); n.stale && (next.IsZero() || shared.Before(next)) {
		next = shared
	}
	return next
}

// probe looks at a target once.
func (n *Node) probe(ctx context.Context, t health.Target, timeout, late time.Duration) {
	select {
	case n.probes <- struct{}{}:
		defer func() { <-n.probes }()
	case <-ctx.Done():
		return
	}
	began := time.Now()
	probing, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	alarm := time.AfterFunc(late, func() {
		if probing.Err() == nil {
			n.late(t)
		}
	})
	o := n.config.Probe(probing, t)
	alarm.Stop()
	if ctx.Err() != nil {
		return
	}
	o.Target, o.At = t, time.Now()
	n.observe(o, began)
}

// late takes that a probe has no answer yet, though it should.
func (n *Node) late(t health.Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); n.schedule.Assigned(t) && n.watcher.Late(t, now) {
		n.schedule.Confirm(t, n.wall(now))
		n.publish(&t, false)
		n.anew()
	}
}

// Observe takes an observation that was made by the way, such as of clients' traffic: its failure is no more than a suspicion.
func (n *Node) Observe(o health.Observation) {
	o.Passive, o.At = true, time.Now()
	n.observe(o, o.At)
}

// observe takes an observation of a probe that began at a time.
func (n *Node) observe(o health.Observation, began time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.schedule.Assigned(o.Target) {
		return
	}
	if !o.OK && !o.Passive {
		n.counts.Failures++
	}
	if o.OK {
		n.schedule.Answered(o.Target, n.wall(began))
	}
	before, _ := n.watcher.Statement(o.Target, o.At)
	changed := n.watcher.Observe(o)
	s, _ := n.watcher.Statement(o.Target, o.At)
	if confirms := o.OK && s.Status == health.Down && !s.Suppressed || !o.OK && s.Suspects(); confirms && n.mayConfirm(&o) {
		n.schedule.Confirm(o.Target, n.wall(o.At))
		n.nudge()
	}
	if changed {
		n.publish(&o.Target, before.Status != s.Status || before.Suspects() == s.Suspects())
		n.anew()
	}
}

// mayConfirm reports whether what was seen may have the target probed at once: clients' requests may once in ten seconds, however many fail.
func (n *Node) mayConfirm(o *health.Observation) bool {
	if !o.Passive {
		return true
	}
	last := n.traffic[o.Target]
	if !last.IsZero() && o.At.Sub(last) < trafficPause {
		return false
	}
	n.traffic[o.Target] = o.At
	return true
}

// trafficPause is the time between two probes of a target because of clients' requests, at least.
const trafficPause = 10 * time.Second

// publish makes a new report, and has it told. About, if it is not nil, is the target of which there is news.
func (n *Node) publish(about *health.Target, lasting bool) {
	now := time.Now()
	n.sequence++
	n.counts.Reports++
	r := n.report(now)
	if n.config.Describe != nil {
		n.config.Describe(r)
	}
	var nearby []string
	if about != nil {
		n.schedule.Others(*about, func(vantage string) { nearby = append(nearby, vantage) })
	}
	if lasting {
		n.unsaid = time.Time{}
	} else if n.unsaid.IsZero() {
		n.unsaid = now
	}
	n.config.Publish(r, nearby, lasting)
}

// report is what this node has to say.
func (n *Node) report(now time.Time) *health.Report {
	return &health.Report{
		Vantage: n.config.Vantage, Incarnation: n.incarnation, Sequence: max(n.sequence, 1), Full: true,
		Self: n.self, Hosts: n.hosts, Statements: n.watcher.Statements(now),
	}
}

// Degrade has the node say of itself that it cannot do all of its work, and why; empty when it can.
func (n *Node) Degrade(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.self.Degraded == why {
		return
	}
	n.self.Degraded = why
	n.publish(nil, true)
	n.anew()
}

// Say has the node tell others anew what it says, because what Config.Describe adds has changed.
func (n *Node) Say() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.publish(nil, true)
}

// Shed has the node say of itself whether it refuses requests because it is overloaded.
func (n *Node) Shed(does bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.self.Shedding == does {
		return
	}
	n.self.Shedding = does
	n.publish(nil, true)
	n.anew()
}

// Host has the node say what PoPs say of themselves that run in its process: all of them, by name. The list must not be changed afterwards.
func (n *Node) Host(pops []health.Hosted) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.hosts, pops) {
		return
	}
	n.hosts = pops
	n.publish(nil, true)
	n.anew()
}

// Sees returns what this node itself says of a target now; false while it does not look at it.
func (n *Node) Sees(t health.Target) (health.Statement, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watcher.Statement(t, time.Now())
}
