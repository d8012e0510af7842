package vantage

import (
	"context"
	"time"

	"github.com/isochrone/isochrone/health"
)

// start starts the probes that are due, and returns when the next one is; zero for none.
func (n *Node) start(ctx context.Context) (next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for t, mine := range n.targets {
		if !mine.mine || mine.probing {
			continue
		}
		if mine.urgent || !now.Before(mine.due) {
			mine.due = n.next(t, mine.turn, len(mine.turns), now)
			mine.probing = true
			burst := mine.urgent
			mine.urgent = false
			mine.number++
			n.counts.Probes++
			number := mine.number
			n.running.Go(func() { n.probe(ctx, t, number, burst) })
			continue
		}
		if next.IsZero() || mine.due.Before(next) {
			next = mine.due
		}
	}
	return next
}

// probe looks at a target once.
func (n *Node) probe(ctx context.Context, t health.Target, number int, burst bool) {
	select {
	case n.probes <- struct{}{}:
		defer func() { <-n.probes }()
	case <-ctx.Done():
		return
	}
	n.mu.Lock()
	patience := n.watcher.Patience(t, burst)
	n.mu.Unlock()
	probing, cancel := context.WithTimeout(ctx, patience.Timeout)
	defer cancel()
	alarm := time.AfterFunc(patience.Late, func() { n.late(t, number, patience.Late, burst) })
	o := n.once(probing, t, patience.Again)
	alarm.Stop()
	if ctx.Err() != nil {
		return
	}
	o.Target, o.Burst, o.At = t, burst, time.Now()
	n.observe(o, true)
}

// once looks at a target, and after a while once more beside the first time, so that a lost packet is no failure. The first success counts.
func (n *Node) once(ctx context.Context, t health.Target, again time.Duration) health.Observation {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan health.Observation, 2)
	look := func() { results <- n.config.Probe(ctx, t) }
	n.running.Go(look)
	second := time.NewTimer(again)
	defer second.Stop()
	for out := 1; ; {
		select {
		case <-second.C:
			n.running.Go(look)
			out++
		case o := <-results:
			if out--; o.OK || out == 0 {
				return o
			}
		}
	}
}

// late takes that a probe has no answer yet.
func (n *Node) late(t health.Target, number int, after time.Duration, burst bool) {
	n.mu.Lock()
	mine := n.targets[t]
	is := mine != nil && mine.probing && mine.number == number
	n.mu.Unlock()
	if is {
		reason := "no answer within " + after.Round(time.Millisecond).String()
		n.observe(health.Observation{Target: t, Late: true, Burst: burst, Code: health.CodeLate, Reason: reason, Took: after, At: time.Now()}, false)
	}
}

// Observe takes an observation that was made by the way, such as of clients' traffic.
func (n *Node) Observe(o health.Observation) {
	o.Passive, o.At = true, time.Now()
	n.observe(o, false)
}

// observe takes an observation; ended is whether a probe has ended with it.
func (n *Node) observe(o health.Observation, ended bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	mine := n.targets[o.Target]
	if mine == nil || !mine.mine {
		if mine != nil && ended {
			mine.probing = false
		}
		return
	}
	if ended {
		mine.probing = false
		if !o.OK {
			n.counts.Failures++
		}
	}
	before, suspected := n.watcher.Status(o.Target), n.watcher.Suspects(o.Target)
	news := n.watcher.Observe(o)
	// A first failure, and a first success of what was down, are looked at again at once.
	if ended && (n.watcher.Suspects(o.Target) || o.OK && before == health.Down && n.watcher.Status(o.Target) == health.Down) ||
		o.Passive && n.watcher.Suspects(o.Target) {
		mine.urgent = true
		n.nudge()
	}
	if news {
		now := n.watcher.Status(o.Target)
		n.publish(mine, now != before || now == health.Up && !suspected && !n.watcher.Suspects(o.Target))
		n.news(o.Target)
	}
}

// look probes a target at once because somebody sees it otherwise, unless that was done a moment ago.
func (n *Node) look(t health.Target) {
	mine := n.targets[t]
	if mine == nil || !mine.mine {
		return
	}
	now := time.Now()
	if !mine.burst.IsZero() && now.Sub(mine.burst) < health.BurstPause {
		return
	}
	mine.burst = now
	mine.urgent = true
	n.counts.Bursts++
	n.nudge()
}

// publish makes a new report, and has it told. Mine, if it is not nil, is the target of which there is news.
func (n *Node) publish(mine *target, lasting bool) {
	now := time.Now()
	n.sequence++
	r := &health.Report{
		Vantage: n.config.Name, Region: n.config.Region, Looks: n.config.Looks, Incarnation: uint64(n.began.UnixNano()),
		Sequence: n.sequence, Degraded: n.degraded,
		Statements: n.watcher.Statements(now),
	}
	if n.config.Describe != nil {
		n.config.Describe(r)
	}
	n.said = r
	n.counts.Reports++
	var nearby []string
	if mine != nil {
		for _, v := range mine.turns {
			if v.Name != n.config.Name {
				nearby = append(nearby, v.Name)
			}
		}
	}
	if lasting {
		n.unsaid = time.Time{}
	} else if n.unsaid.IsZero() {
		n.unsaid = now
	}
	n.config.Publish(r, nearby, lasting)
}

// Degrade has the node say of itself that it cannot do all of its work, and why; empty when it can.
func (n *Node) Degrade(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.degraded == why {
		return
	}
	n.degraded = why
	n.publish(nil, true)
	n.allNews()
}
