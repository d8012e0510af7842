package packet

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	flowlevel "github.com/isochrone/isochrone/simulations/flow"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// The flow level computes what this level measures: on one small world both say the same, within 2 %. It counts a millisecond for a PoP's work on a
// post, which takes no virtual time.
func TestAgreesWithFlow(t *testing.T) {
	text := strings.NewReplacer("count: 24", "count: 60", "SIN, weight: 1", "SIN, weight: 3", "SIN, FRA, IAD]}\n  clusters", "SIN, FRA, IAD, GRU, BOM]}\n  clusters").Replace(small)
	s, w := scene(t, text)
	ours, err := Run(context.Background(), s, w, scenario.Ours, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	while := *s // expectations over some time are what each client sees once
	while.Duration = scenario.Duration(10 * time.Minute)
	theirs, err := flowlevel.Run(context.Background(), &while, w, scenario.Ours, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rtt.p50", "rtt.p90", "rtt.mean", "off.mean", "fresh.p50", "fresh.p99", "post.p50", "post.p99", "acknowledged.p50", "within.10ms", "cluster.within.30ms"} {
		got, ok := ours.Figures[name]
		want, known := theirs.Figures[name]
		if !ok || !known || got.Unit != want.Unit {
			t.Errorf("%s: got %+v (%v), the flow level has %+v (%v)", name, got, ok, want, known)
			continue
		}
		if name, _, _ := strings.Cut(name, "."); name == "fresh" || name == "post" || name == "acknowledged" {
			want.Value--
		}
		if off := math.Abs(got.Value - want.Value); off > max(0.02*want.Value, 0.1) {
			t.Errorf("%s: got %v, the flow level has %v", name, got.Value, want.Value)
		}
	}
}
