package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Trace is why a decision is as it is. The zero Trace is ready for Decide, which fills in all of it.
type Trace struct {
	Service    string       `json:"service"`
	Family     string       `json:"family"`             // A, AAAA or HTTPS
	Client     netip.Prefix `json:"client"`             // as asked
	Network    netip.Prefix `json:"network"`            // the block of the table that holds the client
	Place      *Place       `json:"place,omitempty"`    // nil when the database does not know the network
	Measured   netip.Prefix `json:"measured,omitzero"`  // the prefix of the RTT map that holds the client
	Rules      []string     `json:"rules,omitempty"`    // that fit the client
	Canary     bool         `json:"canary,omitempty"`   // the client gets the canary policy
	Bucket     string       `json:"bucket,omitempty"`   // the prefix whose clients are split alike, when the answer depends on it
	Outcome    string       `json:"outcome"`            //
	Fallback   string       `json:"fallback,omitempty"` // what the answer had to disregard
	Answer     []string     `json:"answer"`             // PoPs, best first
	Scope      netip.Prefix `json:"scope"`              // every client in it gets this answer
	Candidates []Candidate  `json:"candidates"`         // in the client's rank order, then those that are none for this client
}

// Candidate is a PoP that competed for a client.
type Candidate struct {
	PoP         string         `json:"pop"`
	City        string         `json:"city,omitempty"`
	Families    []string       `json:"families"`         // A and AAAA, as it has addresses
	PredictedMS float64        `json:"predicted_rtt_ms"` // from the client's place; the mean over the world's nodes if that is unknown
	MeasuredMS  *float64       `json:"measured_rtt_ms,omitempty"`
	Samples     int            `json:"samples,omitempty"` // of the measurement
	Weight      float64        `json:"measured_weight"`   // of the measurement in RTTMS, 0..1
	RTTMS       float64        `json:"rtt_ms"`            // what it was ranked by, without the policy's costs
	CostMS      float64        `json:"cost_ms,omitempty"` // by which the policy counts it as farther away
	Group       int            `json:"group"`             // PoPs of one group share their clients; 0 behind those that are ranked for this client
	Share       float64        `json:"share"`             // of its clients that it gets, 0..1
	State       topology.State `json:"state"`
	Health      health.Status  `json:"health"`             // what health says to clients of this region, even while an operator says otherwise
	Verdict     health.Verdict `json:"verdict"`            // with votes, regions, and since when
	Says        []Said         `json:"says,omitempty"`     // what each vantage says, where that is known
	Override    string         `json:"override,omitempty"` // the operator's decisions about it, in words
	Chosen      bool           `json:"chosen"`
	Reason      string         `json:"reason"` // why it was chosen or lost
}

// Said is what a vantage says of a PoP.
type Said struct {
	Vantage string        `json:"vantage"`
	Region  string        `json:"region,omitempty"` // the continent's code
	Status  health.Status `json:"status"`
	Reason  string        `json:"reason,omitempty"`
	Since   time.Time     `json:"since"`
	Doubted bool          `json:"doubted,omitempty"` // it is not believed
}

func (tr *Trace) fill(v *View, q *question, f Family, client netip.Prefix, a Answer) {
	t := v.Table
	*tr = Trace{
		Service: q.service.name, Family: f.String(), Client: client, Outcome: a.Outcome.String(), Fallback: a.Fallback.String(),
		Scope: netip.PrefixFrom(client.Addr().Unmap(), int(a.ScopeBits)).Masked(),
	}
	for _, c := range a.Choices[:a.N] {
		tr.Answer = append(tr.Answer, t.pops[c].name)
	}
	space := t.v6
	if q.v4 {
		space = t.v4
	}
	if q.ranking == nil { // as for no family
		q.block = space.find(q.addr)
	}
	o := t.originOf(space.origin[q.block])
	tr.Network, tr.Place = space.prefix(q.block), t.atlas.places[o.place]
	if o.measured != noPrefix {
		tr.Measured = t.rttMap.Prefix(int(o.measured))
	}
	if q.cut {
		tr.Bucket = fmt.Sprint(q.splitCell())
	}
	tr.candidates(v, q, o, a)
}

// splitCell is the prefix whose clients are in one bucket.
func (q *question) splitCell() netip.Prefix {
	if q.v4 {
		return q.addr.mask(splitBits4).prefix(splitBits4, true)
	}
	return q.addr.mask(splitBits6).prefix(splitBits6, false)
}

// candidates lists all PoPs of the service.
func (tr *Trace) candidates(v *View, q *question, o origin, a Answer) {
	t, location := v.Table, v.Table.atlas.location[o.place]
	predicted := make([]uint32, len(t.pops))
	t.predict(location, predicted)
	var entries []rtt.Entry
	if o.measured != noPrefix {
		entries = t.rttMap.Entries(int(o.measured))
	}
	us := slices.Clone(predicted)
	describe := func(c Choice) Candidate {
		pop := t.pops[c]
		x := Candidate{
			PoP: pop.name, City: pop.Location.City, PredictedMS: inMS(predicted[c]), RTTMS: inMS(us[c]),
			Share: shareFor(v, q, c), State: pop.State, Chosen: slices.Contains(a.Choices[:a.N], c),
			Health:  v.State.healthFor(q, pop.name),
			Verdict: v.State.inputs.Verdicts[health.Target{Kind: health.PoP, Name: pop.name}],
		}
		x.Verdict.Status = cmp.Or(x.Verdict.Status, health.Unknown)
		decision := v.State.decided.PoP(pop.name)
		for _, o := range []*topology.Override{decision.Drain, decision.Force, decision.Pin} {
			if o != nil {
				x.Override = strings.TrimPrefix(x.Override+"; "+o.String(), "; ")
			}
		}
		for _, f := range []Family{IPv4, IPv6} {
			if pop.has(f) {
				x.Families = append(x.Families, f.String())
			}
		}
		for _, e := range entries {
			if t.rttMap.PoPs()[e.PoP] == pop.name {
				ms := inMS(e.Microseconds)
				x.MeasuredMS, x.Samples = &ms, int(e.Samples)
				if q.ranking != nil && q.ranking.policy.Rank != topology.RankByPredicted {
					us[c], x.Weight = rtt.Merge(predicted[c], e)
					x.RTTMS = inMS(us[c])
				}
			}
		}
		return x
	}
	if q.ranking == nil {
		for _, c := range q.service.candidates {
			x := describe(c)
			x.Reason = "has no address for " + tr.Family
			tr.Candidates = append(tr.Candidates, x)
		}
		return
	}
	variant := q.ranking.variants[q.class.variant]
	for _, i := range variant.rules {
		name := q.ranking.policy.Rules[i].Name
		tr.Rules = append(tr.Rules, cmp.Or(name, fmt.Sprintf("rules[%d]", i)))
	}
	tr.Canary = q.ranking == q.service.canary[familyOf(tr.Family)] && q.ranking != q.service.rankings[familyOf(tr.Family)]
	order := q.order()
	standings := v.State.standing[q.class.region]
	for rank, c := range order {
		x := describe(c)
		if q.ranking.cost != nil {
			x.CostMS = inMS(q.ranking.cost[c])
		}
		x.Group = q.group(rank)
		x.Reason = tr.reason(v, q, c, a, standings[c], variant, slices.Index(order, c) > slices.Index(order, lastChosen(a)))
		if why := v.State.why[c]; why != "" && standings[c] <= shared && (x.Chosen || x.Share < 1) {
			x.Reason += " (" + why + ")" // an operator has decided so
		}
		tr.Candidates = append(tr.Candidates, x)
	}
	for _, c := range q.service.candidates {
		if slices.Contains(order, c) {
			continue
		}
		x := describe(c)
		switch {
		case !q.ranking.member[c]:
			x.Reason = "has no address for " + tr.Family
		case x.Chosen:
			x.Reason = "of the pool that is answered when all others are down"
		default:
			x.Reason = "forbidden by " + strings.Join(tr.Rules, ", ")
		}
		tr.Candidates = append(tr.Candidates, x)
	}
}

// healthFor returns what health says of a PoP to clients like this one.
func (s *State) healthFor(q *question, pop string) health.Status {
	v := s.inputs.Verdicts[health.Target{Kind: health.PoP, Name: pop}]
	if q.ranking != nil && q.class.region > 0 {
		return v.In(topology.Continents[q.class.region-1])
	}
	return v.In("")
}

// shareFor returns what share of clients like this one a choice takes, in 0..1.
func shareFor(v *View, q *question, c Choice) float64 {
	if q.ranking == nil {
		return v.State.shares[c]
	}
	_, share := q.share(c)
	return share
}

func familyOf(name string) Family {
	return Family(slices.Index([]string{IPv4.String(), IPv6.String(), Either.String()}, name))
}

func lastChosen(a Answer) Choice {
	if a.N == 0 {
		return noChoice
	}
	return a.Choices[a.N-1]
}

func inMS(us uint32) float64 { return float64(us) / 1000 }

// order returns all that the client may be sent to, in the order of the client.
func (q *question) order() []Choice {
	order := slices.Clone(q.class.first[:q.class.n])
	if q.class.all || q.class.n == 0 {
		return order
	}
	for _, c := range q.table.near[q.table.anchor(q.class)] {
		if q.ranking.member[c] && q.ranking.variants[q.class.variant].allows(c) && !q.class.lists(c) {
			order = append(order, c)
		}
	}
	return order
}

// group numbers the group of a rank from 1; those behind the ranked ones have none.
func (q *question) group(rank int) int {
	if rank >= int(q.class.n) {
		return 0
	}
	group := 0
	for i := range rank + 1 {
		group += int(q.class.groups >> i & 1)
	}
	return group
}

// reason says why a candidate that the client may be sent to was chosen or lost.
func (tr *Trace) reason(v *View, q *question, c Choice, a Answer, s standing, variant *variant, behind bool) string {
	why := v.State.why[c]
	at := slices.Index(a.Choices[:a.N], c)
	if at >= 0 {
		switch {
		case a.Fallback == FailOpen:
			return fmt.Sprintf("all candidates are down and the service fails open (%s)", why)
		case a.Fallback == Panic && s == dead:
			return fmt.Sprintf("fewer than %d %% of the service's PoPs are well, so verdicts do not count (%s)", q.service.Steering.Panic, why)
		case a.Fallback == FromPool:
			return "of the pool that is answered when all others are down"
		case a.Fallback == BeyondShare:
			return fmt.Sprintf("gets %.0f %% of its clients, not this one, but no other PoP is well", 100*shareFor(v, q, c))
		case variant.must && q.class.lists(c) && q.shares(c):
			return "drawn for this client's bucket among those that a rule demands"
		case variant.must:
			return "first that may be answered of those that a rule demands"
		case variant.tier != nil && variant.tier[c] != lastTier:
			return "preferred by a rule"
		case q.class.lists(c) && q.shares(c):
			return "drawn for this client's bucket among PoPs that are equally good"
		case tr.Place == nil:
			return "the client's place is not known: first of the failover order, or lowest mean RTT"
		case q.ranking.policy.Rank == topology.RankByFailover:
			return "first of the failover order that may be answered"
		case at > 0:
			return "among the nearest that may be answered"
		}
		return "nearest that may be answered"
	}
	switch {
	case s == barred || s == dead:
		return why
	case (s == shared || s == reserved) && !behind && shareFor(v, q, c) < 1:
		return fmt.Sprintf("gets %.0f %% of its clients, and this one is not among them", 100*shareFor(v, q, c))
	case q.class.lists(c) && q.shares(c) && !behind:
		return "shares its clients with PoPs that are equally good, and this bucket was drawn by another"
	}
	return "a better one was answered"
}

// shares reports whether a choice that the class lists shares clients with another one.
func (q *question) shares(c Choice) bool {
	i := slices.Index(q.class.first[:q.class.n], c)
	return q.class.groups>>i&1 == 0 || i+1 < int(q.class.n) && q.class.groups>>(i+1)&1 == 0
}
