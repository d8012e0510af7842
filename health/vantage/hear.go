package vantage

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
)

// Hear takes a report of another vantage, which has just come: from the store, or directly. What is older than what is known is not taken, and is no
// sign of life; but what the store says of a vantage that was not alive is: it may have begun anew by a clock that was set back.
func (n *Node) Hear(r *health.Report, stored bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.Name == n.config.Name {
		n.meetNamesake(r, stored, time.Now())
		return
	}
	now := time.Now()
	if !n.hasRoom(r.Name) {
		return
	}
	was, before := n.alive(r.Name, now), n.known[r.Name]
	if stored && !was {
		n.ledger.Retain(func(name string) bool { return name != r.Name })
	}
	changed, err := n.ledger.Take(r, now)
	s := n.sign(r.Name)
	if stored {
		s.stored = true
	} else if err == nil {
		s.direct = now
	}
	if err == nil || before.Name == "" {
		n.known[r.Name] = r.Vantage
	}
	if !was && n.alive(r.Name, now) || before != n.known[r.Name] {
		n.stale = true
		n.anew()
	}
	if err != nil { // nothing new
		return
	}
	for _, theirs := range r.Statements {
		mine, _ := n.watcher.Statement(theirs.Target, now)
		if n.schedule.Heard(r.Name, theirs, mine, n.wall(now)) {
			n.counts.Bursts++
			n.nudge()
		}
	}
	if changed {
		n.anew()
	}
}

// meetNamesake takes a report of this node's own name: its own, one of a process that ran before, or of one that runs besides, which none should.
// What the store has of another is soon replaced by what this one says.
func (n *Node) meetNamesake(r *health.Report, stored bool, now time.Time) {
	if !stored || r.Incarnation == n.incarnation {
		return
	}
	was := n.namesake.runs(now)
	if n.namesake.heard(now); !was && n.namesake.runs(now) {
		n.config.Log.Error("another process has the name of this one: others hear one of them at most, give each a name of its own", "name", r.Name)
	}
	n.outlive(r, stored)
	n.contested = true
}

// insist has this node say all anew when the store has a report of another process of its name.
func (n *Node) insist(now time.Time) {
	if n.contested && now.Sub(n.insisted) >= insistence {
		n.contested, n.insisted = false, now
		n.publish(nil, true)
	}
}

const (
	// insistence is the time between two reports that are made because the store has one of another process of this name.
	insistence = 5 * time.Second
	// namesakeSpan is over how long reports of another process come before it is sure that it runs: one that was replaced ends sooner.
	namesakeSpan = 30 * time.Second
	// namesakePatience is how long nothing may come of it.
	namesakePatience = time.Minute
	// namesakeReports is how many reports come of it at least.
	namesakeReports = 4
)

// namesake is another process that has this one's name.
type namesake struct {
	first, last time.Time
	reports     int
}

func (o *namesake) heard(now time.Time) {
	if o.reports == 0 || now.Sub(o.last) > namesakePatience {
		*o = namesake{first: now}
	}
	o.last = now
	o.reports++
}

func (o *namesake) runs(now time.Time) bool {
	return o.reports >= namesakeReports && o.last.Sub(o.first) >= namesakeSpan && now.Sub(o.last) <= namesakePatience
}

// Namesake reports whether another process has the name of this one.
func (n *Node) Namesake() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.namesake.runs(time.Now())
}

// outlive has this node begin later than one of its name that has run before, by a clock that was ahead: else others would take its reports for old.
// It does so once, since two of one name that run at the same time would outdo each other for ever.
func (n *Node) outlive(r *health.Report, stored bool) {
	if stored && !n.outlived && r.Incarnation > max(n.incarnation, time.Now().UnixNano()) && r.Incarnation < math.MaxInt64 {
		n.incarnation, n.outlived = r.Incarnation+1, true
		n.publish(nil, true)
	}
}

// hasRoom makes room for one more vantage, and reports whether there is some.
func (n *Node) hasRoom(name string) bool {
	if _, is := n.known[name]; is || len(n.known) < maxKnown {
		return true
	}
	longest := ""
	for other := range n.known {
		if s := n.signs[other]; s != nil && !s.silent.IsZero() && (longest == "" || s.silent.Before(n.signs[longest].silent)) {
			longest = other
		}
	}
	if longest == "" {
		return false
	}
	n.forget(longest)
	return true
}

// age forgets vantages that have been silent for long: such as DNS nodes whose names were those of machines that are no more.
func (n *Node) age(now time.Time) {
	patience := SilentPatience
	if !n.store {
		patience = storelessPatience
	}
	for name := range n.known {
		switch s := n.sign(name); {
		case n.alive(name, now):
			s.silent = time.Time{}
		case s.silent.IsZero():
			s.silent = now
		case now.Sub(s.silent) >= patience:
			n.forget(name)
		}
	}
}

func (n *Node) sign(vantage string) *signs {
	s := n.signs[vantage]
	if s == nil {
		s = &signs{}
		n.signs[vantage] = s
	}
	return s
}

// Sign takes a sign of life of another vantage, which came directly, and what its wall clock said. Of one that is not known it is none.
func (n *Node) Sign(vantage string, wall time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.known[vantage]; !known {
		return
	}
	now := time.Now()
	s, was := n.sign(vantage), n.alive(vantage, now)
	s.direct, s.ahead, s.clocked = now, wall.Sub(n.config.Clock()), true
	if !was {
		n.stale = true
		n.anew()
	}
}

// Gone takes that the store has no report of a vantage any more.
func (n *Node) Gone(vantage string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.signs[vantage]; s != nil {
		s.stored = false
		n.reviewVantages(time.Now())
	}
}

// Store takes whether the store can be read: while it cannot, nobody is alive for it.
func (n *Node) Store(readable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store != readable {
		n.store = readable
		n.reviewVantages(time.Now())
	}
}

// Forget drops a vantage that there is no more, rather than one that is silent.
func (n *Node) Forget(vantage string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(vantage)
}

func (n *Node) forget(vantage string) {
	delete(n.signs, vantage)
	delete(n.known, vantage)
	n.ledger.Retain(func(name string) bool { return name != vantage })
	n.reviewVantages(time.Now())
	n.anew()
}

// reviewVantages sees who is alive, and has targets shared out anew when others share them than before.
func (n *Node) reviewVantages(now time.Time) {
	for name, s := range n.signs {
		if alive := n.alive(name, now); alive != s.counts {
			s.counts = alive
			n.anew()
		}
	}
	if !slices.Equal(n.present(now), n.vantages) {
		n.stale = true
		n.anew()
	}
}

// review sees what time alone has changed; number tells how often it has been called.
func (n *Node) review(number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.insist(now)
	if number%int(time.Second/review) == 0 {
		n.age(now)
	}
	wakes, ok := n.watcher.Wakes(n.reviewed)
	n.reviewed = now
	if ok && !wakes.After(now) || !n.unsaid.IsZero() && now.Sub(n.unsaid) >= lastingAfter {
		n.publish(nil, true)
		n.anew()
	}
	if n.reviewVantages(now); number%int(restate/review) == 0 || number%int(time.Second/review) == 0 && n.alone() {
		n.anew()
	}
}

// reports returns the reports of those who are alive.
func (n *Node) reports(now time.Time) []*health.Report {
	return append(n.ledger.Reports(func(name string, _ time.Time) bool { return n.alive(name, now) }), n.report(now))
}

// anew has verdicts made anew.
func (n *Node) anew() {
	n.news = true
	n.nudge()
}

// judgeIfDue makes verdicts if something has come, or returns when to.
func (n *Node) judgeIfDue() (again time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.news {
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
	now, before := time.Now(), n.judgement.Verdicts
	all := []health.Vantage{n.config.Vantage}
	for _, v := range n.known {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b health.Vantage) int { return strings.Compare(a.Name, b.Name) })
	j := health.Judge(health.Inputs{Reports: n.reports(now), Targets: n.targets, Vantages: all, Previous: before, Now: now, Alone: n.alone()})
	for t, v := range j.Verdicts {
		switch was := before[t].Status; {
		case v.Status == health.Down:
			v.Recovered = time.Time{}
		case was == health.Down:
			v.Recovered = now
		}
		j.Verdicts[t] = v
	}
	n.log(before, j.Verdicts)
	n.news, n.judged, n.judgement = false, now, j
	n.counts.Judgements++
	if n.config.Judged != nil {
		n.config.Judged(j)
	}
}

// log tells people which verdicts have changed.
func (n *Node) log(before, after health.Verdicts) {
	for _, t := range n.targets {
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
