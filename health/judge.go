package health

import (
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

// AlonePatience is for how long a node that hears no other must have seen a target down before it says so: until then it sees whether most others
// are down as well, which tells that itself is cut off.
const AlonePatience = 4 * time.Second

// Judgement is what Judge found.
type Judgement struct {
	Verdicts Verdicts
	Doubted  []Doubt // by name of vantage
}

// Judge reaches the verdicts. It has no memory: what it returns depends on its arguments alone, and not on the order of reports.
//
// A target is down when more than half of the vantages that speak of it say so, and at least two unless there is only one; it is up when
// at least half say so: a target that half of the world reaches is not dead. Otherwise, when too many know nothing yet, the previous
// verdict stays. A region that has at least three vantages has a verdict of its own, by the same rule, when two of them speak of the target.
// Every vantage has one vote of a target, whether it is assigned to it or not, so that nodes need not agree on who is.
func Judge(in Inputs) Judgement {
	reports := slices.SortedFunc(slices.Values(in.Reports), func(a, b *Report) int { return strings.Compare(a.Name, b.Name) })
	reports = slices.CompactFunc(reports, func(a, b *Report) bool { return a.Name == b.Name })
	ballots := in.collect(reports)
	if in.Alone {
		for _, b := range ballots {
			b.votes = slices.DeleteFunc(b.votes, func(v vote) bool { return v.Status == Down && in.Now.Sub(v.Since) < AlonePatience })
		}
	}
	j := Judgement{Verdicts: make(Verdicts, len(in.Targets))}
	doubted := map[string]bool{}
	for _, r := range reports {
		if d, ok := doubt(r, ballots, in.Alone); ok {
			j.Doubted = append(j.Doubted, d)
			doubted[r.Name] = true
		}
	}
	regions := in.regions()
	for _, t := range in.Targets {
		b := ballots[t]
		if len(doubted) > 0 {
			b.votes = slices.DeleteFunc(b.votes, func(v vote) bool { return doubted[v.vantage.Name] })
		}
		j.Verdicts[t] = in.verdict(t, b, regions)
	}
	return j
}

// verdict judges one target.
func (in *Inputs) verdict(t Target, b *ballot, regions []string) Verdict {
	previous, known := in.Previous[t]
	if !known {
		previous = Verdict{Status: Unknown, Since: in.Now}
	}
	least := 2
	if in.Alone || b.judges < 2 {
		least = 1
	}
	v := previous
	v.Regions, v.Suspected, v.Votes = nil, false, count(b.votes)
	v.Shedding = b.says != nil && b.says.Shedding
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
	for _, region := range b.regions(regions) {
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
