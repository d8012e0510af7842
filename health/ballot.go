package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	says     *Self   // what the target says of itself, by that report or, without one, by its host's
	judges   int     // vantages that there are and look at such targets, but the target itself
	kind     Kind    // of the target
}

// collect has each vantage vote on what it speaks of, but for itself.
func (in *Inputs) collect(reports []*Report) map[Target]*ballot {
	ballots := make(map[Target]*ballot, len(in.Targets))
	selves := make(map[string]*ballot, len(in.Targets))
	looking := map[Kind]int{}
	for _, v := range in.Vantages {
		for _, k := range kindNumbers {
			if v.sees(k) {
				looking[k]++
			}
		}
	}
	for _, t := range in.Targets {
		b := &ballot{judges: looking[t.Kind], kind: t.Kind}
		ballots[t], selves[t.node()] = b, b
	}
	for _, v := range in.Vantages {
		if self := selves[v.Name]; self != nil && v.sees(self.kind) {
			self.judges--
		}
	}
	for _, r := range reports {
		self := selves[r.Name]
		if self != nil {
			self.self, self.says = r, &r.Self
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
	for _, r := range reports {
		for i := range r.Hosts {
			h := &r.Hosts[i]
			if b := ballots[Target{PoP, h.PoP}]; b != nil && b.says == nil && r.mayHost() {
				b.says = &Self{Degraded: h.Degraded, Shedding: h.Shedding}
			}
		}
	}
	return ballots
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
	case status == Degraded, was == Degraded && status == Up: // nothing that votes tell of
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
	type tally struct {
		first vote
		n     int
	}
	tallies := make([]tally, 0, 4) // there are few codes
	for _, v := range votes {
		i := slices.IndexFunc(tallies, func(t tally) bool { return t.first.Code == v.Code })
		if i < 0 {
			i, tallies = len(tallies), append(tallies, tally{first: v})
		}
		tallies[i].n++
	}
	best := slices.MinFunc(tallies, func(a, b tally) int {
		return cmp.Or(b.n-a.n, strings.Compare(string(a.first.Code), string(b.first.Code)))
	}).first
	return best.Code, best.Reason
}

// degraded returns what the target says of itself; of one that is not heard, what it said before.
func (b *ballot) degraded(previous Verdict) string {
	if b.says != nil {
		if b.says.Degraded == "" {
			return ""
		}
		return "it says itself: " + b.says.Degraded
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

// regions returns the regions that have vantages enough for verdicts of their own, sorted.
func (in *Inputs) regions() []string {
	counts := map[string]int{}
	regions := []string{}
	for _, v := range in.Vantages {
		if v.Region != "" {
			if counts[v.Region]++; counts[v.Region] == perRegion {
				regions = append(regions, v.Region)
			}
		}
	}
	slices.Sort(regions)
	return regions
}

// regions returns those regions that have two votes.
func (b *ballot) regions(of []string) []string {
	voting := []string{}
	for _, region := range of {
		n := 0
		for _, v := range b.votes {
			if v.vantage.Region == region {
				n++
			}
		}
		if n >= 2 {
			voting = append(voting, region)
		}
	}
	return voting
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
