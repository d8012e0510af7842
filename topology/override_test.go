package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseOverride(t *testing.T) {
	const rest = ", reason: r, author: a, created: 2030-01-01T00:00:00Z, expires: 2030-01-01T01:00:00Z}"
	for _, test := range []struct{ name, text, want string }{
		{"drain", "{schema: 1, kind: drain, pop: sin1" + rest, ""},
		{"force", "{schema: 1, kind: force, verdict: down, cluster: ap" + rest, ""},
		{"pin", "{schema: 1, kind: pin, pop: sin1, share: 0" + rest, ""},
		{"JSON", `{"schema": 1, "kind": "pin", "pop": "sin1", "share": 0.25, "reason": "r", "author": "", "expires": "2030-01-01T00:00:00Z"}`, ""},
		{"kind", "{schema: 1, kind: drian, pop: sin1" + rest, `overrides.x.kind: "drian" is not one of ["drain" "force" "pin"]`},
		{"no target", "{schema: 1, kind: drain" + rest, "overrides.x: want one of pop and cluster"},
		{"two targets", "{schema: 1, kind: drain, pop: sin1, cluster: ap" + rest, "overrides.x: want one of pop and cluster"},
		{"verdict missing", "{schema: 1, kind: force, pop: sin1" + rest, `overrides.x.verdict: "" is not one of ["up" "down"]`},
		{"verdict of a drain", "{schema: 1, kind: drain, pop: sin1, verdict: up" + rest, `overrides.x.verdict: "up" belongs to an override of kind force, not drain`},
		{"share missing", "{schema: 1, kind: pin, pop: sin1" + rest, "overrides.x.share: is missing: want the share of its clients that the PoP keeps, 0..1"},
		{"share too large", "{schema: 1, kind: pin, pop: sin1, share: 1.1" + rest, "overrides.x.share: 1.1 is not in 0..1"},
		{"no share", "{schema: 1, kind: pin, pop: sin1, share: nan" + rest, "overrides.x.share: NaN is not in 0..1"},
		{"share of a drain", "{schema: 1, kind: drain, pop: sin1, share: 0.5" + rest, "overrides.x.share: 0.5 belongs to an override of kind pin, not drain"},
		{"share of a cluster", "{schema: 1, kind: pin, cluster: ap, share: 0.5" + rest, "overrides.x.cluster: a share is pinned of a PoP: want pop instead"},
		{"no reason", "{schema: 1, kind: drain, pop: sin1, reason: ' ', expires: 2030-01-01T01:00:00Z}", "overrides.x.reason: is missing"},
		{"long reason", "{schema: 1, kind: drain, pop: sin1, reason: " + strings.Repeat("ä", 501) + ", expires: 2030-01-01T01:00:00Z}", "overrides.x.reason: has 501 characters, at most 500 are taken"},
		{"long author", "{schema: 1, kind: drain, pop: sin1, reason: r, author: " + strings.Repeat("a", 201) + ", expires: 2030-01-01T01:00:00Z}", "overrides.x.author: has 201 characters, at most 200"},
		{"no end", "{schema: 1, kind: drain, pop: sin1, reason: r, author: a}", "overrides.x.expires: is missing: an override ends by itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, faults := ParseOverride("x", []byte(test.text))
			switch {
			case test.want == "" && (o == nil || len(faults) > 0):
				t.Errorf("got faults %v, want none", faults)
			case test.want != "" && (o != nil || len(faults) != 1 || !strings.Contains(faults[0].String(), test.want)):
				t.Errorf("got %v\nwant %s", faults, test.want)
			}
			if o != nil {
				if again, faults := ParseOverride("x", MarshalValue(o)); len(faults) > 0 || again.String() != o.String() {
					t.Errorf("after writing and reading: %v, faults %v", again, faults)
				}
			}
		})
	}
}

func TestDecide(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(hour int) time.Time { return start.Add(time.Duration(hour) * time.Hour) }
	share := 0.5
	overrides := map[string]*Override{
		"a": {Kind: Force, PoP: "sin1", Verdict: ForceUp, Created: at(0), Expires: at(9)},
		"b": {Kind: Force, PoP: "sin1", Verdict: ForceDown, Created: at(1), Expires: at(5)}, // the newest, until it ends
		"c": {Kind: Force, Cluster: "sin1", Verdict: ForceUp, Created: at(2), Expires: at(8)},
		"d": {Kind: Drain, PoP: "fra1", Created: at(2), Expires: at(4)},
		"e": {Kind: Pin, PoP: "fra1", Share: &share, Created: at(2), Expires: at(9)},
		"f": {Kind: Force, PoP: "nrt1", Verdict: ForceDown, Created: at(1), Expires: at(9)},
		"g": {Kind: Force, PoP: "nrt1", Verdict: ForceUp, Created: at(1), Expires: at(9)}, // of the two the last in the alphabet
	}
	for range 20 { // maps have no order
		for hour, want := range map[int]string{3: "down up true 0.5 up 4h", 4: "down up false 0.5 up 5h", 5: "up up false 0.5 up 8h", 8: "up  false 0.5 up 9h", 9: "  false 1  none"} {
			d := Decide(overrides, at(hour))
			sin1, _ := d.PoP("sin1").Verdict()
			cluster, _ := d.Cluster("sin1").Verdict()
			pinned, _ := d.PoP("fra1").Share()
			nrt1, _ := d.PoP("nrt1").Verdict()
			until := "none"
			if end, ok := d.Until(); ok {
				until = fmt.Sprintf("%.0fh", end.Sub(start).Hours())
			}
			if got := fmt.Sprintln(sin1, cluster, d.PoP("fra1").Drained(), pinned, nrt1, until); got != want+"\n" {
				t.Fatalf("at %d h: got %s\nwant %s", hour, got, want)
			}
		}
	}
}
