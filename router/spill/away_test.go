package spill

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
)

// lose returns a world while one of its PoPs is away.
func (w *World) lose(lost int) *World {
	v := &World{PoPs: slices.Delete(slices.Clone(w.PoPs), lost, lost+1), Away: []string{w.PoPs[lost].Name}}
	for _, c := range w.Cells {
		hops := c.Hops
		c.Hops = nil
		for _, h := range hops {
			if h.PoP > lost {
				h.PoP--
				c.Hops = append(c.Hops, h)
			} else if h.PoP < lost {
				c.Hops = append(c.Hops, h)
			}
		}
		v.Cells = append(v.Cells, c)
	}
	return v
}

func (w *World) worst(loads []float64) float64 {
	worst := 0.0
	for p, load := range loads {
		worst = max(worst, load/w.PoPs[p].CapacityRPS)
	}
	return worst
}

// takesBut returns shares without those of a PoP.
func takesBut(takes map[Leading]router.Takes, pop string) map[Leading]router.Takes {
	others := map[Leading]router.Takes{}
	for leading, shares := range takes {
		others[leading] = maps.Clone(shares)
		delete(others[leading], pop)
	}
	return others
}

// TestLossAndReturn has each of some PoPs lost. The shares that were planned for that hold, so that a plan moves few again; and when the
// PoP comes back it is not flooded, whatever was planned meanwhile.
func TestLossAndReturn(t *testing.T) {
	names, at := fortyPoPs(t)
	w := worldOf(names, at, 400, 1)
	w.capacities(0.75, 1)
	calm, _ := Plan(w, noShares, Options{Fill: 0.9})
	plain := 0.0
	for lost := 0; lost < len(names); lost += 10 {
		after, _ := Flows(w, calm, lost)
		if worst := w.worst(after); worst > 1 {
			t.Errorf("without %s a PoP has %.3f of its capacity", names[lost], worst)
		}
		without := w.lose(lost)
		next, report := Plan(without, calm, Options{Fill: 0.99})
		if report.Why == "overload" || report.Moved > 0.021*w.total {
			t.Errorf("without %s: %q moves %.4f of %.4f, though no PoP has too much", names[lost], report.Why, report.Moved, w.total)
		}
		next, report = Plan(without, next, Options{Fill: 0.9}) // which moves clients, while the PoP is away
		if report.Why == "" {
			continue
		}
		back, _ := Flows(w, next, -1)
		if worst := back[lost] / w.PoPs[lost].CapacityRPS; worst > 1 {
			t.Errorf("when %s comes back it gets %.3f of its capacity", names[lost], worst)
		}
		dropped := noShares
		dropped.Takes = takesBut(next.Takes, names[lost])
		flooded, _ := Flows(w, dropped, -1)
		plain = max(plain, flooded[lost]/w.PoPs[lost].CapacityRPS)
	}
	if plain < 1 {
		t.Errorf("without the shares that PoPs had, none would be flooded: at most %.3f of a capacity", plain)
	}
}

// TestVerdictsOfRegionsAreInTheWorld has a PoP dead for Asia: its clients there cannot be sent to it, others can.
func TestVerdictsOfRegionsAreInTheWorld(t *testing.T) {
	v := fortyView(t, 1)
	atlas, err := router.NewAtlas(router.SampleGeo{
		{Prefix: netip.MustParsePrefix("1.0.0.0/16"), Place: &router.Place{Continent: "AS", Location: v.Table.Snapshot().Topology.PoPs["sin1"].Location}},
		{Prefix: netip.MustParsePrefix("2.0.0.0/16"), Place: &router.Place{Continent: "EU", Location: v.Table.Snapshot().Topology.PoPs["fra1"].Location}},
	})
	if err != nil {
		t.Fatal(err)
	}
	table, err := v.Table.Elsewhere(atlas, v.Table.Snapshot().Topology)
	if err != nil {
		t.Fatal(err)
	}
	dead := health.Verdict{Status: health.Up, Regions: map[string]health.RegionVerdict{"AS": {Status: health.Down}}}
	in := router.Inputs{Now: time.Unix(0, 0), Verdicts: health.Verdicts{{Kind: health.PoP, Name: "sin1"}: dead}}
	view := &router.View{Table: table, State: router.NewState(table, in)}
	w := NewWorld(view, nil, []Demand{{Client: netip.MustParsePrefix("1.0.0.0/16"), RPS: 1}, {Client: netip.MustParsePrefix("2.0.0.0/16"), RPS: 2}})
	sin1 := slices.IndexFunc(w.PoPs, func(p PoP) bool { return p.Name == "sin1" })
	if sin1 < 0 || len(w.Away) > 0 || len(w.Cells) != 2 {
		t.Fatalf("sin1 is number %d, away are %v, %d cells", sin1, w.Away, len(w.Cells))
	}
	for _, c := range w.Cells {
		sent := slices.ContainsFunc(c.Hops, func(h Hop) bool { return h.PoP == sin1 })
		if inAsia := c.Weight == 1; sent == inAsia {
			t.Errorf("clients of %.0f requests a second may be sent to sin1: %v", c.Weight, sent)
		}
	}
}
