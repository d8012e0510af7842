package router

import (
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestLivePreparesBeforeItPublishes edits a topology: while others prepare for it, an override takes effect on the old one, and stays in
// effect on the new one, which is older than the override.
func TestLivePreparesBeforeItPublishes(t *testing.T) {
	atlas, err := NewAtlas(world())
	if err != nil {
		t.Fatal(err)
	}
	now, live := start, NewLive(atlas)
	old, next := sixPoPs(), sixPoPs()
	if err := live.Topology(&topology.Snapshot{Revision: 1, Good: 1, Topology: old}, now); err != nil {
		t.Fatal(err)
	}
	drain := map[string]*topology.Override{"o": {Kind: topology.Drain, PoP: "sin1", Created: now, Expires: now.Add(time.Hour)}}
	decided := &topology.Snapshot{Revision: 3, Good: 2, Topology: next, Overrides: drain}
	prepared := 0
	live.Prepare(func(v *View) {
		if prepared++; prepared > 1 {
			return
		}
		if v.Table.Snapshot().Topology != next || live.View().Table.Snapshot().Topology != old {
			t.Error("what is prepared for is in force already, or is not what comes")
		}
		live.Decisions(decided, now) // by another goroutine, as it were
		if got := live.View().Table.Snapshot(); got.Topology != old || got.Overrides["o"] == nil {
			t.Errorf("got %+v in force, want the old topology and the override", got)
		}
	})
	var seen []*topology.Snapshot
	live.Follow(func(v *View) { seen = append(seen, v.Table.Snapshot()) })
	if err := live.Topology(&topology.Snapshot{Revision: 2, Good: 2, Topology: next}, now); err != nil {
		t.Fatal(err)
	}
	if last := seen[len(seen)-1]; len(seen) != 3 || last.Topology != next || last.Overrides["o"] == nil || last.Good != 2 {
		t.Errorf("got %d views, the last %+v, want the new topology with the override", len(seen), last)
	}
	if err := live.Topology(decided, now); err != nil || prepared != 1 {
		t.Errorf("an override was prepared for: %d, %v", prepared, err)
	}
	signed := *decided
	signed.Revision, signed.Signed = 4, 4
	if err := live.Topology(&signed, now); err != nil || prepared != 2 {
		t.Errorf("other signing was not prepared for: %d, %v", prepared, err)
	}
	if err := live.Topology(&topology.Snapshot{Revision: 5, Good: 5, Topology: sixPoPs()}, now); err != nil || len(live.View().Table.Snapshot().Overrides) != 0 {
		t.Errorf("a later edit without the override: %v", err)
	}
}
