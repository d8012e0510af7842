package vantage

import (
	"maps"
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
)

// Hear takes a report of another vantage, from the store or directly. It is the newest of the store, or at any rate not older than others that
// came directly: an older one than is known is not taken.
func (n *Node) Hear(r *health.Report, stored bool) {
	if r.Vantage == n.config.Name {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.heard[r.Vantage]
	if h == nil {
		h = &heard{}
		n.heard[r.Vantage] = h
	}
	now := time.Now()
	was := n.alive(h, now)
	if n.known[r.Vantage] = true; stored {
		h.stored = true
	} else {
		h.sign = now
	}
	before := h.report
	if r.Newer(before) {
		h.report, h.came = r, now
	}
	if !was && n.alive(h, now) || before != nil && (before.Region != h.report.Region || !slices.Equal(before.Looks, h.report.Looks)) {
		n.assign()
	}
	if h.report != before {
		n.compareWith(before, r)
	}
	if h.report != before && (before == nil || before.Degraded != r.Degraded) || was != n.alive(h, now) {
		n.allNews()
	}
	n.nudge()
}

// compareWith looks at once at targets of which another vantage has changed its mind, and sees otherwise than this one.
func (n *Node) compareWith(before, r *health.Report) {
	if before != nil {
		for t := range before.Statements {
			if _, still := r.Statements[t]; !still {
				n.news(t)
			}
		}
	}
	for t, s := range r.Statements {
		if before != nil {
			if old, ok := before.Statements[t]; ok && old.Status == s.Status && old.Suspects() == s.Suspects() {
				continue
			}
		}
		n.news(t)
		own := n.watcher.Status(t)
		if own != health.Down && (s.Status == health.Down || s.Suspects()) || own == health.Down && s.Status == health.Up && !s.Suspects() {
			n.look(t)
		}
	}
}

// Sign takes a sign of life of another vantage, which came directly, and what its wall clock said.
func (n *Node) Sign(vantage string, wall time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.heard[vantage]
	if h == nil {
		return
	}
	now := time.Now()
	h.ahead, h.clocked = wall.Sub(n.config.Clock()), true
	was := n.alive(h, now)
	if h.sign = now; !was && n.alive(h, now) {
		n.assign()
		n.allNews()
		n.nudge()
	}
}

// Gone takes that the store has no report of a vantage any more.
func (n *Node) Gone(vantage string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.heard[vantage]; h != nil {
		h.stored = false
		n.reviewVantages(time.Now())
	}
	n.nudge()
}

// Store takes whether the store can be read: while it cannot, nobody is alive for it.
func (n *Node) Store(readable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store == readable {
		return
	}
	n.store = readable
	n.reviewVantages(time.Now())
	n.nudge()
}

// Forget drops a vantage that there is no more, rather than one that is silent.
func (n *Node) Forget(vantage string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.heard, vantage)
	delete(n.known, vantage)
	n.reviewVantages(time.Now())
}

// reviewVantages shares targets out anew when others are alive than before.
func (n *Node) reviewVantages(now time.Time) {
	alive := 1
	for name, h := range n.heard {
		if !n.alive(h, now) {
			continue
		}
		alive++
		if _, counted := slices.BinarySearchFunc(n.vantages, name, func(v health.Vantage, name string) int {
			if v.Name == name {
				return 0
			}
			return compare(v.Name, name)
		}); !counted {
			alive = -len(n.heard) - 1
		}
	}
	if alive != len(n.vantages) {
		n.assign()
		n.allNews()
	}
}

// review sees what time alone has changed.
func (n *Node) review(all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if all {
		n.allNews()
	}
	now := time.Now()
	if n.watcher.Settle(now) {
		n.publish(nil, true)
		n.allNews()
	}
	if !n.unsaid.IsZero() && now.Sub(n.unsaid) >= lastingAfter {
		n.publish(nil, true)
	}
	n.reviewVantages(now)
}

// reports returns the reports of those who are alive, and when they came.
func (n *Node) reports(now time.Time) (map[string]*health.Report, map[string]time.Time) {
	reports, came := map[string]*health.Report{}, map[string]time.Time{}
	for name, h := range n.heard {
		if n.alive(h, now) {
			reports[name], came[name] = h.report, h.came
		}
	}
	own := &health.Report{Vantage: n.config.Name, Region: n.config.Region, Degraded: n.degraded, Statements: n.watcher.Statements(now)}
	reports[n.config.Name], came[n.config.Name] = own, now
	return reports, came
}

// lastingAfter is how old a suspicion, or its end, is at most before the store is told of it.
const lastingAfter = time.Second

// news has the verdict of a target made anew.
func (n *Node) news(t health.Target) {
	n.dirty[t] = true
	n.nudge()
}

// allNews has all verdicts made anew.
func (n *Node) allNews() {
	n.all = true
	n.nudge()
}

// judgeIfDue makes verdicts if something has come, or returns when to.
func (n *Node) judgeIfDue() (again time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.all && len(n.dirty) == 0 {
		return again
	}
	if due := n.judged.Add(settling); time.Now().Before(due) {
		return due
	}
	n.judge()
	return again
}

// judge makes verdicts of what is known, and gives them on.
func (n *Node) judge() {
	now := time.Now()
	reports, came := n.reports(now)
	before := n.judgement.Verdicts
	of := maps.Keys(n.targets)
	if !n.all {
		of = maps.Keys(n.dirty)
	}
	targets := slices.DeleteFunc(slices.Collect(of), func(t health.Target) bool { return n.targets[t] == nil })
	j := health.Judge(health.Inputs{Targets: targets, Reports: reports, Came: came, Previous: before, Now: now, Silent: n.silent()})
	if !maps.Equal(j.Doubted, n.judgement.Doubted) && !n.all { // whoever is doubted is not heard about others either
		n.all = true
		n.judge()
		return
	}
	n.log(before, j.Verdicts)
	if !n.all {
		for t, v := range before {
			if _, anew := j.Verdicts[t]; !anew && n.targets[t] != nil {
				j.Verdicts[t] = v
			}
		}
	}
	n.all, n.judged, n.judgement = false, now, j
	clear(n.dirty)
	n.counts.Judgements++
	if n.config.Judged != nil {
		n.config.Judged(j)
	}
}

// log tells people which verdicts have changed.
func (n *Node) log(before, after health.Verdicts) {
	for _, t := range after.Targets() {
		was, is := before[t], after[t]
		if was.Status == is.Status || was.Status == "" && is.Status == health.Unknown {
			continue
		}
		say := n.config.Log.Info
		if is.Status == health.Down || is.Status == health.Degraded {
			say = n.config.Log.Warn
		} else if was.Status == "" || was.Status == health.Unknown { // as one expects at the start
			say = n.config.Log.Debug
		}
		say("verdict", "target", t.String(), "status", string(is.Status), "reason", is.Reason)
	}
}
