package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Inputs are what verdicts are made of.
type Inputs struct {
	Targets  []Target             // that are judged; a few of those that there are, where nothing has changed of the others
	Reports  map[string]*Report   // of the vantages that are alive, by name
	Came     map[string]time.Time // when each report came, by this node's clock; the age of what it says counts from then
	Previous Verdicts             // of this node
	Silent   bool                 // there are other vantages, of which none is heard
	Now      time.Time
}

// Judgement is what comes of reports.
type Judgement struct {
	Verdicts Verdicts
	Doubted  map[string]string // vantages that are not believed, and why
}

// Judge makes verdicts of reports.
//
// A target is down when a majority of the vantages that were heard about it say so, and at least two of them if others than the one could be heard; a
// region that has three such vantages has a verdict of its own, by their majority. A PoP that is not down is degraded when it says so itself.
// Where the reports decide nothing, what was true before stays true. A vantage that says that most of what it sees is down, while most others who
// see the same say that it is not, is not believed.
//
// So no single vantage makes a verdict, where others are heard. It does not matter in which order reports have come, nor what came before, where
// they decide. A vantage that hears none of the others any more decides alone, but not that most of the world is down: then it is more likely that
// itself is cut off.
func Judge(in Inputs) Judgement {
	reports := make([]*Report, 0, len(in.Reports))
	for _, name := range slices.Sorted(maps.Keys(in.Reports)) {
		reports = append(reports, in.Reports[name])
	}
	doubted := doubts(reports)
	j := Judgement{Verdicts: make(Verdicts, len(in.Targets)), Doubted: doubted}
	witnesses, selves := 0, map[Target]int{}
	for name, r := range in.Reports {
		if in.Silent && seesMostDown(r) {
			doubted[name] = "it hears no other vantage, and says that most of what it sees is down"
		}
		if doubted[name] != "" {
			continue
		}
		witnesses++
		if self, ok := r.Self(); ok {
			selves[self]++
		}
	}
	for _, t := range in.Targets {
		others := witnesses - selves[t]
		j.Verdicts[t] = verdict(in, t, votesOn(t, reports), doubted, others)
	}
	return j
}

// vote is what a vantage says of a target.
type vote struct {
	report *Report
	Statement
}

// votesOn lists what is said of a target. Nobody is heard about himself.
func votesOn(t Target, reports []*Report) []vote {
	var votes []vote
	for _, r := range reports {
		if s, ok := r.Statements[t]; ok && (r.Vantage != string(t.Kind)+":"+t.Name || t.Kind == Cluster) {
			votes = append(votes, vote{r, s})
		}
	}
	return votes
}

// doubtful is how many targets a vantage must hold to be down before it can be doubted.
const doubtful = 3

// seesMostDown reports whether a vantage says that most of what it sees is down.
func seesMostDown(r *Report) bool {
	down := 0
	for _, s := range r.Statements {
		if s.Status == Down {
			down++
		}
	}
	return down >= doubtful && 2*down > len(r.Statements)
}

// doubts returns the vantages that are not to be believed, and why.
func doubts(reports []*Report) map[string]string {
	doubted := map[string]string{}
	for _, r := range reports {
		if !seesMostDown(r) {
			continue
		}
		down, contradicted := 0, 0
		for t, s := range r.Statements {
			if s.Status != Down {
				continue
			}
			down++
			up, all := 0, 0
			for _, v := range votesOn(t, reports) {
				if v.report != r {
					all++
					if v.Status == Up {
						up++
					}
				}
			}
			if 2*up > all {
				contradicted++
			}
		}
		if 2*contradicted > down {
			doubted[r.Vantage] = fmt.Sprintf("it says that %d of %d targets are down, and most others say of %d of these that they are not", down, len(r.Statements), contradicted)
		}
	}
	return doubted
}

// verdict makes the verdict of one target. Others is how many vantages could be heard about it.
func verdict(in Inputs, t Target, votes []vote, doubted map[string]string, others int) Verdict {
	previous := in.Previous[t]
	v := Verdict{Status: previous.Status, Reason: previous.Reason, Seen: previous.Seen, LastTook: previous.LastTook}
	if v.Status == "" {
		v.Status = Unknown
	}
	votes = slices.DeleteFunc(votes, func(v vote) bool { return doubted[v.report.Vantage] != "" })
	byRegion := map[string][]vote{}
	for _, one := range votes {
		byRegion[one.report.Region] = append(byRegion[one.report.Region], one)
		v.Suspected = v.Suspected || one.Suspects() || one.Status == Down
		v.Seen = in.Now // what somebody who is alive has said holds until he says otherwise
	}
	v.Votes = count(votes)
	decided, ok := decide(v.Votes, others)
	if ok {
		v.Status = decided
		v.Reason, v.LastTook = evidence(votes, decided)
	} else if v.Status == Degraded {
		v.Status = Up // whether it is, it says below
	}
	for region, own := range byRegion {
		if region == "" || len(own) < RegionQuorum {
			continue
		}
		status, ok := decide(count(own), len(own))
		if !ok {
			if status = previous.Regions[region]; status == "" {
				continue
			}
		}
		if v.Regions == nil {
			v.Regions = map[string]Status{}
		}
		v.Regions[region] = status
	}
	if r := in.Reports[string(PoP)+":"+t.Name]; t.Kind == PoP && r != nil && r.Degraded != "" && v.Status != Down {
		v.Status, v.Reason = Degraded, "it says itself: "+r.Degraded
	}
	v.Suspected = v.Suspected && v.Status != Down
	v.Since, v.Recovered = since(in, previous, v, votes)
	return v
}

func count(votes []vote) (c Votes) {
	for _, v := range votes {
		if v.Status == Down {
			c.Down++
		} else {
			c.Up++
		}
	}
	return c
}

// decide returns what a majority says, and false when there is none. One alone is believed only when there are no others to be heard.
func decide(c Votes, others int) (Status, bool) {
	need := min(2, others)
	switch {
	case c.Down > c.Up && c.Down >= need:
		return Down, true
	case c.Up > c.Down && c.Up >= need:
		return Up, true
	}
	return Unknown, false
}

// evidence tells why, by what most of those who agree say, and how long their probes took.
func evidence(votes []vote, decided Status) (string, time.Duration) {
	saying, agree := map[Code]int{}, 0
	for _, v := range votes {
		if (v.Status == Down) == (decided == Down) {
			saying[v.Code]++
			agree++
		}
	}
	var best vote
	for _, v := range votes { // in the order of names: the first of those who say what most say
		if (v.Status == Down) == (decided == Down) && (best.report == nil || saying[v.Code] > saying[best.Code]) {
			best = v
		}
	}
	reason := best.Reason
	if reason == "" {
		reason = string(best.Code)
	}
	if len(votes) == 1 {
		return fmt.Sprintf("%s: %s", best.report.Vantage, reason), best.Took
	}
	return fmt.Sprintf("%d of %d vantages, as %s: %s", agree, len(votes), best.report.Vantage, reason), best.Took
}

// since returns when a verdict became what it is, and when the target came back from down.
func since(in Inputs, previous, v Verdict, votes []vote) (since, recovered time.Time) {
	recovered = previous.Recovered
	if previous.Status == v.Status {
		return previous.Since, recovered
	}
	if previous.Status == Down && v.Status != Down {
		recovered = in.Now
	}
	if v.Status == Down {
		recovered = time.Time{}
	}
	if previous.Status == "" || previous.Status == Unknown { // this node has just begun: the median of those who agree knows better
		var ages []time.Time
		for _, one := range votes {
			if (one.Status == Down) == (v.Status == Down) {
				ages = append(ages, in.Came[one.report.Vantage].Add(-one.Age))
			}
		}
		if len(ages) > 0 {
			slices.SortFunc(ages, time.Time.Compare)
			return ages[len(ages)/2], recovered
		}
	}
	return in.Now, recovered
}

// Explain returns what each vantage says of a target, in words, for people.
func Explain(reports map[string]*Report, t Target) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(reports)) {
		r := reports[name]
		s, ok := r.Statements[t]
		if !ok {
			continue
		}
		var steps []string
		for _, step := range s.Steps {
			steps = append(steps, fmt.Sprintf("%s %v", step.Name, step.Took))
		}
		line := fmt.Sprintf("%s: %s, %s", strings.TrimSuffix(name+" in "+r.Region, " in "), s.Status, s.Code)
		if s.Reason != "" {
			line += ": " + s.Reason
		}
		if len(steps) > 0 {
			line += " (" + strings.Join(steps, ", ") + ")"
		}
		lines = append(lines, line)
	}
	return lines
}
