package simulations

import (
	"context"
	"fmt"
	"slices"

	"github.com/isochrone/isochrone/simulations/flow"
	"github.com/isochrone/isochrone/simulations/packet"
	"github.com/isochrone/isochrone/simulations/placement"
	"github.com/isochrone/isochrone/simulations/report"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

// Options say how a scenario is run.
type Options struct {
	Seeds    []uint64              // in place of the scenario's
	Policies []scenario.PolicyName // in place of the scenario's
	Short    bool                  // the short form
	Progress scenario.Progress     // of all runs together; may be nil
}

// engine runs a scenario at one scale, for one policy.
type engine func(context.Context, *scenario.Scenario, *world.World, scenario.PolicyName, uint64, scenario.Progress) (*scenario.Run, error)

var engines = map[scenario.Scale]engine{
	scenario.Packet: packet.Run, scenario.Flow: flow.Run, scenario.Placing: placing,
}

// Simulate runs a scenario: each variant of its world with each seed, at each scale, for each policy; and holds its assertions against that. The error
// is about what could not be run; assertions that do not hold are in the report.
func Simulate(ctx context.Context, sc *scenario.Scenario, o Options) (*report.Report, error) {
	if o.Short {
		sc = sc.ShortForm()
	}
	if len(o.Policies) > 0 {
		with := *sc
		with.Policies = o.Policies
		with.Asserts = slices.DeleteFunc(slices.Clone(sc.Asserts), func(a scenario.Assertion) bool { return with.CheckAssertion(a.That) != nil })
		sc = &with
	}
	seeds := sc.Seeds
	if len(o.Seeds) > 0 {
		seeds = o.Seeds
	}
	variants := []string{""}
	if len(sc.Variants) > 0 {
		variants = nil
		for _, v := range sc.Variants {
			variants = append(variants, v.Name)
		}
	}
	for _, scale := range sc.Scales {
		if engines[scale] == nil {
			return nil, fmt.Errorf("scenario %s: there is no engine for the scale %s yet", sc.Name, scale)
		}
	}
	var runs []*scenario.Run
	all := float64(len(variants) * len(seeds) * len(sc.Scales) * len(sc.Policies))
	progress := func(done float64) {
		if o.Progress != nil {
			o.Progress((float64(len(runs)) + done) / all)
		}
	}
	for _, variant := range variants {
		varied := sc
		if variant != "" {
			varied = sc.Vary(variant)
		}
		for _, seed := range seeds {
			w, err := world.Build(varied.World, seed)
			if err != nil {
				return nil, fmt.Errorf("build the world of %s: %w", sc.Name, err)
			}
			for _, scale := range sc.Scales {
				for _, policy := range sc.Policies {
					run, err := engines[scale](ctx, varied, w, policy, seed, progress)
					if err != nil {
						return nil, fmt.Errorf("run %s, %s, policy %s, seed %d: %w", sc.Name, scale, policy, seed, err)
					}
					run.Variant = variant
					runs = append(runs, run)
					progress(0)
				}
			}
		}
	}
	outcomes, err := scenario.Check(sc, runs)
	if err != nil {
		return nil, fmt.Errorf("assertions of %s: %w", sc.Name, err)
	}
	r := report.New(sc, runs, outcomes)
	r.Short = o.Short
	return r, nil
}

// mostCompared is up to how many sites the optimum is looked for.
const mostCompared = 40

// placing tells where PoPs save most: among the scenario's sites, as many as it counts, by predicted round-trip times.
func placing(ctx context.Context, sc *scenario.Scenario, w *world.World, policy scenario.PolicyName, seed uint64, _ scenario.Progress) (*scenario.Run, error) {
	spec := sc.World.PoPs
	if spec == nil || spec.Count == 0 {
		return nil, fmt.Errorf("placement needs pops with count")
	}
	sites, err := w.Sites()
	if err != nil {
		return nil, err
	}
	problem := &placement.Problem{}
	nodes := 0.0
	for _, m := range w.Metros {
		problem.Weights = append(problem.Weights, float64(m.Nodes))
		nodes += float64(m.Nodes)
	}
	for _, site := range sites {
		problem.RTT = append(problem.RTT, w.Predicted(site))
	}
	chosen := problem.Choose(spec.Count)
	run := &scenario.Run{Scale: scenario.Placing, Policy: policy, Seed: seed, Figures: map[string]scenario.Figure{
		"rtt.mean": {Value: chosen.Cost() / nodes, Unit: "ms"},
	}}
	for i, site := range chosen.Sites {
		at := sites[site]
		run.PoPs = append(run.PoPs, scenario.PoP{Name: at.IATA, Country: at.Country, LatDeg: at.LatDeg, LonDeg: at.LonDeg})
		if i > 0 {
			run.Notes = append(run.Notes, fmt.Sprintf("%2d PoPs, with %s (%s): mean %.1f ms, %.1f ms less", i+1, at.IATA, at.City,
				chosen.Total[i+1]/nodes, (chosen.Total[i]-chosen.Total[i+1])/nodes))
		} else {
			run.Notes = append(run.Notes, fmt.Sprintf(" 1 PoP, %s (%s): mean %.1f ms", at.IATA, at.City, chosen.Total[1]/nodes))
		}
	}
	if n := len(chosen.Total); n > 1 {
		run.Figures["saved.last"] = scenario.Figure{Value: (chosen.Total[n-2] - chosen.Total[n-1]) / nodes, Unit: "ms"}
	}
	if len(sites) <= mostCompared {
		best, err := problem.Best(ctx, spec.Count)
		if err != nil {
			return nil, err
		}
		run.Figures["above.best"] = scenario.Figure{Value: chosen.Cost()/best.Cost() - 1}
	}
	return run, nil
}
