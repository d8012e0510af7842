package controlplane

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/isochrone/isochrone/router/spill"
)

// SpillState is what the leader says, and remembers, of the shares of PoPs.
type SpillState struct {
	Schema    int                 `json:"schema"`
	DemandRPS float64             `json:"demand_rps"`           // of all clients
	MeanMS    float64             `json:"mean_ms"`              // mean round-trip time by the shares in force
	OverRPS   float64             `json:"over_rps"`             // that PoPs have above their capacity by the shares in force
	Last      *SpillPlan          `json:"last,omitempty"`       // none: there was none yet
	Risks     []SpillRisk         `json:"risks,omitempty"`      // losses that would overload a PoP, the worst first
	MoreRisks int                 `json:"more_risks,omitempty"` // that are not listed
	PoPs      map[string]SpillPoP `json:"pops"`
	Memory    map[string]float64  `json:"memory,omitempty"` // of what PoPs have shown that they can do
}

// SpillPlan is the last plan that changed shares.
type SpillPlan struct {
	At     time.Time    `json:"at"`
	Why    string       `json:"why"`              // overload, gain, return or loss
	Moved  float64      `json:"moved"`            // part of the requests that it sends elsewhere, 0..1
	Shifts []SpillShift `json:"shifts,omitempty"` // PoPs whose share of the requests changes, by how much
}

// SpillShift is by how much a PoP's share of the requests changes.
type SpillShift struct {
	PoP string  `json:"pop"`
	By  float64 `json:"by"` // -1..1
}

// SpillRisk is a PoP that would have more than it can do if another one were lost.
type SpillRisk struct {
	Lost        string  `json:"lost"`
	PoP         string  `json:"pop"`
	LoadRPS     float64 `json:"load_rps"`
	CapacityRPS float64 `json:"capacity_rps"`
}

// SpillPoP is what the leader says of a PoP.
type SpillPoP struct {
	Wanted      float64 `json:"wanted"`                 // share of the requests, 0..1
	CapacityRPS float64 `json:"capacity_rps,omitempty"` // that it can do; 0 while that is not known
	Away        bool    `json:"away,omitempty"`         // it is not reckoned with
}

// DecodeSpillState reads a record.
func DecodeSpillState(text []byte) (*SpillState, error) {
	s := new(SpillState)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for pop, rps := range s.Memory {
		if !(rps >= 0) || math.IsInf(rps, 0) {
			delete(s.Memory, pop)
		}
	}
	return s, nil
}

// maxRisks and maxShifts are how many are told.
const (
	maxRisks  = 20
	maxShifts = 20
)

func newSpillState(o *spill.Outcome, last *SpillPlan, memory spill.Memory) *SpillState {
	s := &SpillState{
		Schema: 1, DemandRPS: rounded3(o.Demand), MeanMS: rounded3(o.Report.MeanMS), OverRPS: rounded3(o.Report.Over), Last: last,
		PoPs: map[string]SpillPoP{}, Memory: map[string]float64{},
	}
	risks := slices.Clone(o.Report.Without)
	slices.SortStableFunc(risks, func(a, b spill.Loss) int { return cmp.Compare(b.LoadRPS/b.CanDoRPS, a.LoadRPS/a.CanDoRPS) })
	for _, r := range risks[:min(len(risks), maxRisks)] {
		s.Risks = append(s.Risks, SpillRisk{r.Lost, r.PoP, rounded3(r.LoadRPS), rounded3(r.CanDoRPS)})
	}
	s.MoreRisks = len(risks) - len(s.Risks)
	for _, p := range o.PoPs {
		pop := SpillPoP{CapacityRPS: rounded3(p.CapacityRPS), Away: p.Away}
		if o.Demand > 0 {
			pop.Wanted = math.Round(p.WantedRPS/o.Demand*1e4) / 1e4
		}
		s.PoPs[p.Name] = pop
	}
	for pop, rps := range memory {
		s.Memory[pop] = rounded3(rps)
	}
	return s
}

func newSpillPlan(now time.Time, o *spill.Outcome) *SpillPlan {
	p := &SpillPlan{At: now.UTC().Truncate(time.Millisecond), Why: o.Report.Why}
	if o.Demand > 0 {
		p.Moved = rounded3(o.Report.Moved / o.Demand)
		for _, pop := range o.PoPs {
			if by := math.Round((pop.WantedRPS-pop.BeforeRPS)/o.Demand*1e4) / 1e4; by != 0 {
				p.Shifts = append(p.Shifts, SpillShift{pop.Name, by})
			}
		}
	}
	slices.SortStableFunc(p.Shifts, func(a, b SpillShift) int { return cmp.Compare(math.Abs(b.By), math.Abs(a.By)) })
	p.Shifts = p.Shifts[:min(len(p.Shifts), maxShifts)]
	return p
}

// shifts tells the largest, in words.
func (p *SpillPlan) shifts(most int) []string {
	var words []string
	for _, s := range p.Shifts[:min(len(p.Shifts), most)] {
		words = append(words, fmt.Sprintf("%s %+.1f %%", s.PoP, 100*s.By))
	}
	return words
}
