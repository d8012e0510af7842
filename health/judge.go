package health

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Inputs are all that verdicts depend on.
type Inputs struct {
	Reports  []*Report // of the vantages that are alive, and of this node; at most one of each
	Targets  []Target  // that there are
	Vantages []Vantage // that there are, alive or not: one of several never decides alone
	Previous Verdicts  // they stay where the reports say nothing
	Now      time.Time
	Alone    bool // nobody else is heard: the report of this node decides, unless most of the world is dead in it (local view)
}

// Judgement is what Judge found.
type Judgement struct {
	Verdicts Verdicts
	Doubted  []Doubt // by name of vantage
}

// vote is what one vantage says of one target.
type vote struct {
	vantage *Report
	*Statement
}

// ballot is what there is to judge one target by.
type ballot struct {
	votes    []vote
	up, down int     // of all votes, before any is doubted
	self     *Report // of the target itself
}

// Judge reaches the verdicts. It has no memory: what it returns depends on its arguments alone, and not on the order of reports.
//
// A target is down when more than half of the vantages that speak of it say so, and at least two unless there is only one; it is up when
// at least half say so: a target that half of the world reaches is not dead. Otherwise, when too many know nothing yet, the previous
// verdict stays. A region with at least three such vantages has a verdict of its own, by the same rule. Every vantage has one vote of a
// target, whether it is assigned to it or not, so that nodes need not agree on who is.
func Judge(in Inputs) Judgement {
	reports := slices.SortedFunc(slices.Values(in.Reports), func(a, b *Report) int { return strings.Compare(a.Name, b.Name) })
	reports = slices.CompactFunc(reports, func(a, b *Report) bool { return a.Name == b.Name })
	ballots := collect(in.Targets, reports)
	j := Judgement{Verdicts: make(Verdicts, len(in.Targets))}
	doubted := map[string]bool{}
	for _, r := range reports {
		if d, ok := doubt(r, ballots, in.Alone); ok {
			j.Doubted = append(j.Doubted, d)
			doubted[r.Name] = true
		}
	}
	for _, t := range in.Targets {
		b := ballots[t]
		if len(doubted) > 0 {
			b.votes = slices.DeleteFunc(b.votes, func(v vote) bool { return doubted[v.vantage.Name] })
		}
		j.Verdicts[t] = in.verdict(t, b)
	}
	return j
}

// collect has each vantage vote on what it speaks of, but for itself.
func collect(targets []Target, reports []*Report) map[Target]*ballot {
	ballots := make(map[Target]*ballot, len(targets))
	selves := make(map[string]*ballot, len(targets))
	for _, t := range targets {
		b := &ballot{}
		ballots[t], selves[t.node()] = b, b
	}
	for _, r := range reports {
		self := selves[r.Name]
		if self != nil {
			self.self = r
		}
		for i := range r.Statements {
			s := &r.Statements[i]
			b := ballots[s.Target]
			if b == nil || b == self || len(b.votes) > 0 && b.votes[len(b.votes)-1].vantage == r {
				continue
			}
			b.votes = append(b.votes, vote{r, s})
			switch s.Status {
			case Up:
				b.up++
			case Down:
				b.down++
			}
		}
	}
	return ballots
}

// verdict judges one target.
func (in *Inputs) verdict(t Target, b *ballot) Verdict {
	previous, known := in.Previous[t]
	if !known {
		previous = Verdict{Status: Unknown, Since: in.Now}
	}
	least := 2
	if in.Alone || in.others(t) < 2 {
		least = 1
	}
	v := previous
	v.Regions, v.Suspected, v.Votes = nil, false, count(b.votes)
	degraded := b.degraded(previous)
	if status, ok := v.Votes.decide(least); ok {
		v.Status, v.Code, v.Reason, v.Since = in.found(status, degraded, b.votes, previous.Status, previous.Since)
	} else if previous.Status == Up || previous.Status == Degraded {
		v.Status, v.Reason, v.Since = degradedOr(Up, degraded, previous, in.Now)
	}
	for _, vote := range b.votes {
		v.Suspected = v.Suspected || vote.Suspects()
		if vote.Seen.After(v.Seen) {
			v.Seen = vote.Seen
		}
	}
	v.LastTook = medianTook(b.votes, previous.LastTook)
	for _, region := range b.regions() {
		if v.Regions == nil {
			v.Regions = map[string]RegionVerdict{}
		}
		v.Regions[region] = in.regional(region, b, v, previous.Regions[region], degraded)
	}
	return v
}

// regional judges a target for one region, that has enough votes of its own. What its votes do not decide is as in the world.
func (in *Inputs) regional(region string, b *ballot, world Verdict, previous RegionVerdict, degraded string) RegionVerdict {
	votes := make([]vote, 0, len(b.votes))
	for _, v := range b.votes {
		if v.vantage.Region == region {
			votes = append(votes, v)
		}
	}
	r := RegionVerdict{Status: world.Status, Reason: world.Reason, Since: world.Since, Votes: count(votes)}
	if status, ok := r.Votes.decide(2); ok {
		r.Status, _, r.Reason, r.Since = in.found(status, degraded, votes, previous.Status, previous.Since)
	}
	return r
}

// others returns how many vantages there are that may judge the target.
func (in *Inputs) others(t Target) int {
	n := 0
	for _, v := range in.Vantages {
		if v.Name != t.node() {
			n++
		}
	}
	return n
}

func count(votes []vote) Votes {
	n := Votes{Of: len(votes)}
	for _, v := range votes {
		switch v.Status {
		case Up:
			n.Up++
		case Down:
			n.Down++
		}
	}
	return n
}

// decide returns the status that the votes decide on, and false when too many know nothing. Down takes at least so many votes.
func (n Votes) decide(least int) (Status, bool) {
	switch {
	case 2*n.Down > n.Of && n.Down >= least:
		return Down, true
	case 2*n.Up >= n.Of && n.Up > 0:
		return Up, true
	}
	return Unknown, false
}

// found returns what becomes of a verdict by votes that decided.
func (in *Inputs) found(status Status, degraded string, votes []vote, was Status, since time.Time) (Status, Code, string, time.Time) {
	agree := make([]vote, 0, len(votes))
	for _, v := range votes {
		if v.Status == status {
			agree = append(agree, v)
		}
	}
	code, reason := evidence(agree)
	if len(votes) > 1 {
		reason = fmt.Sprintf("%d of %d vantages: %s", len(agree), len(votes), reason)
	}
	if status == Up && degraded != "" {
		status, code, reason = Degraded, "", degraded
	}
	switch {
	case was == status:
	case status == Degraded:
		since = in.Now
	default:
		slices.SortFunc(agree, func(a, b vote) int { return a.Since.Compare(b.Since) })
		if since = agree[len(agree)/2].Since; since.After(in.Now) {
			since = in.Now
		}
	}
	return status, code, reason, since
}

// evidence returns the code that most votes have, and the reason of the first of them. Votes are sorted by vantage.
func evidence(votes []vote) (Code, string) {
	best, most := votes[0], 0
	for _, v := range votes {
		n := 0
		for _, other := range votes {
			if other.Code == v.Code {
				n++
			}
		}
		if n > most || n == most && v.Code < best.Code {
			best, most = v, n
		}
	}
	return best.Code, best.Reason
}

// degraded returns what the target says of itself; of one that is not heard, what it said before.
func (b *ballot) degraded(previous Verdict) string {
	if b.self != nil {
		if b.self.Self.Degraded == "" {
			return ""
		}
		return "it says itself: " + b.self.Self.Degraded
	}
	if previous.Status == Degraded {
		return previous.Reason
	}
	return ""
}

// degradedOr returns what becomes of a verdict that votes did not decide on.
func degradedOr(status Status, degraded string, previous Verdict, now time.Time) (Status, string, time.Time) {
	reason := previous.Reason
	if degraded != "" {
		status, reason = Degraded, degraded
	}
	if status != previous.Status {
		return status, reason, now
	}
	return status, reason, previous.Since
}

// regions returns the regions that have enough votes for a verdict, sorted.
func (b *ballot) regions() []string {
	counts := map[string]int{}
	regions := []string{}
	for _, v := range b.votes {
		if r := v.vantage.Region; r != "" {
			if counts[r]++; counts[r] == perRegion {
				regions = append(regions, r)
			}
		}
	}
	slices.Sort(regions)
	return regions
}

func medianTook(votes []vote, previous time.Duration) time.Duration {
	took := make([]time.Duration, 0, len(votes))
	for _, v := range votes {
		if v.Took > 0 {
			took = append(took, v.Took)
		}
	}
	if len(took) == 0 {
		return previous
	}
	slices.Sort(took)
	return took[len(took)/2]
}
