package controlplane

import "math"

// SpillStatus tells of the shares of PoPs near capacity: who gets what, and what was changed last.
type SpillStatus struct {
	DemandRPS float64     `json:"demand_rps"`           // requests a second of all clients, as the leader reckons
	MeanMS    float64     `json:"mean_ms"`              // mean round-trip time by the shares in force
	OverRPS   float64     `json:"over_rps"`             // requests a second that PoPs have above their capacity
	Last      *SpillPlan  `json:"last,omitempty"`       // the last plan that changed shares; none: all PoPs take all of their clients
	Risks     []SpillRisk `json:"risks"`                // losses that would overload a PoP, the worst first
	MoreRisks int         `json:"more_risks,omitempty"` // that are not listed
}

// LoadStatus tells how busy a PoP is.
type LoadStatus struct {
	RequestsRPS float64  `json:"requests_rps"`           // a second, as it tells
	CapacityRPS float64  `json:"capacity_rps,omitempty"` // that it can do, as far as that is known: what is stated, or what it has shown, whichever is less
	Used        *float64 `json:"used,omitempty"`         // of that, 0 or more
	Wanted      *float64 `json:"wanted,omitempty"`       // share of all requests that it gets by the shares in force, 0..1; none before there is a leader
	Realised    *float64 `json:"realised,omitempty"`     // share of all requests that it gets, 0..1; none while it tells nothing, or there are none
}

// decisive is what does not change all the time.
func (s *SpillStatus) decisive() *SpillStatus {
	if s == nil {
		return nil
	}
	return &SpillStatus{Last: s.Last}
}

// loaded fills in how busy PoPs are, and what the leader says of their shares.
func (s *Service) loaded(status *Status) {
	var state *SpillState
	if s.Spill != nil {
		state = s.Spill()
	}
	if state != nil {
		status.Spill = &SpillStatus{
			DemandRPS: state.DemandRPS, MeanMS: state.MeanMS, OverRPS: state.OverRPS, Last: state.Last, Risks: some(state.Risks), MoreRisks: state.MoreRisks,
		}
	} else {
		state = &SpillState{}
	}
	loads, sum := LoadsOf(nil), 0.0
	if s.Loads != nil {
		loads = s.Loads()
	}
	for _, p := range status.PoPs {
		sum += loads[p.Name].RequestsRPS
	}
	for i := range status.PoPs {
		p := &status.PoPs[i]
		load, tells := loads[p.Name]
		planned, known := state.PoPs[p.Name]
		if !tells && !known {
			continue
		}
		p.Load = &LoadStatus{RequestsRPS: rounded3(load.RequestsRPS), CapacityRPS: planned.CapacityRPS}
		if tells && sum > 0 {
			p.Load.Realised = toFour(load.RequestsRPS / sum)
		}
		if known && !planned.Away {
			p.Load.Wanted = toFour(planned.Wanted)
		}
		if tells && planned.CapacityRPS > 0 {
			p.Load.Used = toFour(load.RequestsRPS / planned.CapacityRPS)
		}
	}
}

// toFour rounds to four digits behind the point.
func toFour(x float64) *float64 {
	x = math.Round(x*1e4) / 1e4
	return &x
}
