package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// Trace is why a decision is as it is. The zero Trace is ready for Decide, which fills in all of it.
type Trace struct {
	Service    string       `json:"service"`
	Family     string       `json:"family"`          // A, AAAA or HTTPS
	Client     netip.Prefix `json:"client"`          // as asked
	Network    netip.Prefix `json:"network"`         // the block of the table that holds the client
	Place      *Place       `json:"place,omitempty"` // nil when the database does not know the network
	Outcome    string       `json:"outcome"`
	FailOpen   bool         `json:"fail_open"`
	Answer     []string     `json:"answer"`     // PoPs, best first
	Scope      netip.Prefix `json:"scope"`      // every client in it gets this answer
	Candidates []Candidate  `json:"candidates"` // in the client's rank order, then those without an address of the family
}

// Candidate is a PoP that competed for a client.
type Candidate struct {
	PoP         string         `json:"pop"`
	City        string         `json:"city,omitempty"`
	PredictedMS float64        `json:"predicted_rtt_ms"` // from the client's place; the mean over the world's nodes if that is unknown
	State       topology.State `json:"state"`
	Health      health.Status  `json:"health"`
	Chosen      bool           `json:"chosen"`
	Reason      string         `json:"reason"` // why it was chosen or lost
}

func (tr *Trace) fill(v *View, service *tableService, r *ranking, f Family, client netip.Prefix, at position, a Answer) {
	t := v.Table
	*tr = Trace{
		Service: service.name, Family: f.String(), Client: client,
		Network: at.space.prefix(at.block, at.v4), Place: t.places[at.space.place[at.block]],
		Outcome: a.Outcome.String(), FailOpen: a.FailOpen,
		Scope: netip.PrefixFrom(client.Addr().Unmap(), int(a.ScopeBits)).Masked(),
	}
	for _, c := range a.Choices[:a.N] {
		tr.Answer = append(tr.Answer, t.pops[c].name)
	}
	var order []Choice
	if r != nil {
		order = r.order(at)
	}
	for _, c := range order {
		tr.Candidates = append(tr.Candidates, tr.candidate(v, c, a))
	}
	for _, c := range service.candidates {
		if !slices.Contains(order, c) {
			lost := tr.candidate(v, c, a)
			lost.Reason = "has no address for " + f.String()
			tr.Candidates = append(tr.Candidates, lost)
		}
	}
}

// order returns all candidates in the rank order of a block.
func (r *ranking) order(at position) []Choice {
	class, _ := r.at(at)
	order := slices.Clone(class.first[:class.n])
	for _, c := range r.tails[class.first[0]] {
		if !class.lists(c) {
			order = append(order, c)
		}
	}
	return order
}

func (tr *Trace) candidate(v *View, c Choice, a Answer) Candidate {
	pop := v.Table.pops[c]
	ok, why := v.State.Standing(c)
	candidate := Candidate{
		PoP: pop.name, City: pop.Location.City, PredictedMS: v.Table.predict(tr.Place, c), State: pop.State,
		Health: cmp.Or(v.State.verdicts[health.Target{Kind: health.PoP, Name: pop.name}].Status, health.Unknown),
		Chosen: slices.Contains(a.Choices[:a.N], c),
	}
	switch {
	case candidate.Chosen && a.FailOpen:
		candidate.Reason = fmt.Sprintf("all candidates are down and the service fails open (%s)", why)
	case candidate.Chosen && tr.Place == nil:
		candidate.Reason = "the client's place is not known: first of the failover order, or lowest mean RTT"
	case candidate.Chosen && slices.Index(a.Choices[:a.N], c) > 0:
		candidate.Reason = "among the nearest that may be answered"
	case candidate.Chosen:
		candidate.Reason = "nearest that may be answered"
	case !ok:
		candidate.Reason = why
	default:
		candidate.Reason = "a nearer one was answered"
	}
	return candidate
}

// predict returns the predicted round-trip time in milliseconds between a place, or the world's nodes, and a choice.
func (t *Table) predict(place *Place, c Choice) float64 {
	if place == nil {
		return meanRTT(t.model.To(t.pops[c].Location))
	}
	return t.model.Milliseconds(place.Location, t.pops[c].Location)
}
