package bgp

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	vip   = netip.MustParsePrefix("192.0.2.0/24")
	began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good  = Check{OK: true, Reason: "accepted a probe"}
	bad   = Check{Reason: "answered 503"}
)

// step is an instant, what is known then, and what must be decided.
type step struct {
	at     time.Duration
	in     Inputs // without the time
	others []Other
	action Action
	stands Standing
	reason string // a part of it
}

func TestMachine(t *testing.T) {
	well := Inputs{Service: good, Verdict: good, Known: true}
	dead := Inputs{Service: bad, Verdict: good, Known: true}
	judged := Inputs{Service: good, Verdict: Check{Reason: "dead for Asia"}, Known: true}
	drained := Inputs{Service: good, Verdict: good, Operator: GoAway, Why: "maintenance", Known: true}
	broken := Inputs{Service: bad, Verdict: good, Operator: GoAway, Why: "maintenance", Known: true}
	gone := Inputs{Service: good, Verdict: good, Operator: MustGo, Why: "disabled", Known: true}
	kept := Inputs{Service: bad, Verdict: bad, Operator: MustStay, Why: "the probe is broken", Known: true}
	blind := Inputs{Service: bad, Verdict: good}
	a, z := Other{"a", Stays}, Other{"z", Stays}
	const s = time.Second
	for name, test := range map[string]struct {
		settings Settings
		steps    []step
	}{
		"announced once it has been well for a while": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, "well for 0s"}, {2900 * time.Millisecond, well, nil, Withdraw, Left, "well for 2s: announced once that is 3s"},
			{3 * s, well, nil, Announce, Stays, "accepted a probe"},
		}},
		"never announced while dead": {Settings{}, []step{{0, dead, nil, Withdraw, Left, "503"}, {time.Hour, dead, nil, Withdraw, Left, "503"}}},
		"a short failure begins the time of being well anew": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {2 * s, dead, nil, Withdraw, Left, ""}, {3 * s, well, nil, Withdraw, Left, ""}, {5 * s, well, nil, Withdraw, Left, ""},
			{6 * s, well, nil, Announce, Stays, ""},
		}},
		"a failure withdraws without draining": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""},
			{10 * s, dead, nil, Announce, Stays, ""}, {10*s + 500*time.Millisecond, well, nil, Announce, Stays, ""}, // too short
			{20 * s, dead, nil, Announce, Stays, ""}, {21 * s, dead, nil, Withdraw, Left, "does not work here: answered 503"},
			{22 * s, well, nil, Withdraw, Left, ""}, {27 * s, well, nil, Withdraw, Left, "once that is 6s"}, {28 * s, well, nil, Announce, Stays, ""},
		}},
		"failures make it wait longer, up to a bound, and are forgotten": {Settings{MaxRise: 5 * s, Forget: time.Minute}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {4 * s, dead, nil, Announce, Stays, ""}, {5 * s, dead, nil, Withdraw, Left, ""},
			{6 * s, well, nil, Withdraw, Left, ""}, {10 * s, well, nil, Withdraw, Left, ""}, {11 * s, well, nil, Announce, Stays, ""},
			{71 * s, well, nil, Announce, Stays, ""}, {72 * s, dead, nil, Announce, Stays, ""}, {73 * s, dead, nil, Withdraw, Left, ""},
			{80 * s, well, nil, Withdraw, Left, ""}, {85 * s, well, nil, Announce, Stays, ""},
		}},
		"a drain is announced with the community first": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {10 * s, drained, nil, Drain, Wants, "drained: maintenance"},
			{14 * s, drained, nil, Drain, Wants, ""}, {15 * s, drained, nil, Withdraw, Left, ""}, {60 * s, drained, nil, Withdraw, Left, ""},
			{61 * s, well, nil, Announce, Stays, ""},
		}},
		"a drain that is called off has no effect any more": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {10 * s, drained, nil, Drain, Wants, ""}, {12 * s, well, nil, Announce, Stays, ""},
			{20 * s, drained, nil, Drain, Wants, ""}, {24 * s, drained, nil, Drain, Wants, ""}, {25 * s, drained, nil, Withdraw, Left, ""},
		}},
		"a verdict drains, and its end is waited for": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {10 * s, judged, nil, Drain, Wants, "dead for Asia"},
			{12 * s, well, nil, Drain, Stays, "once that is 6s"}, {13 * s, judged, nil, Drain, Wants, ""}, {18 * s, judged, nil, Withdraw, Left, ""},
		}},
		"a service that fails in a drain is withdrawn": {Settings{}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {10 * s, drained, nil, Drain, Wants, ""}, {11 * s, broken, nil, Drain, Wants, ""},
			{12 * s, broken, nil, Withdraw, Left, ""},
		}},
		"an operator's word counts": {Settings{MinAnnouncers: 5}, []step{
			{0, kept, nil, Announce, Stays, "the probe is broken"}, {10 * s, gone, nil, Drain, Wants, "disabled"}, {15 * s, gone, nil, Withdraw, Left, ""},
		}},
		"the floor holds the last one, drained": {Settings{MinAnnouncers: 1}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {9 * s, dead, nil, Announce, Stays, ""}, {10 * s, dead, nil, Drain, Dead, "waits until"},
			{13 * s, dead, nil, Drain, Dead, "held by the floor: of 1 that announce 192.0.2.0/24, at least 1 must"}, {time.Hour, dead, []Other{{"z", Left}}, Drain, Dead, "held"},
			{time.Hour + s, dead, []Other{z}, Withdraw, Left, ""},
		}},
		"enough that stay and come first: at once": {Settings{MinAnnouncers: 1}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {9 * s, dead, []Other{a}, Announce, Stays, ""}, {10 * s, dead, []Other{a}, Withdraw, Left, ""},
		}},
		"who works stays rather than who does not": {Settings{MinAnnouncers: 1}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {9 * s, drained, []Other{{"a", Dead}}, Drain, Wants, "waits"},
			{20 * s, drained, []Other{{"a", Dead}}, Drain, Wants, "held"}, {21 * s, drained, []Other{{"a", Wants}}, Withdraw, Left, ""},
		}},
		"nothing known of the others": {Settings{MinAnnouncers: 1}, []step{
			{0, well, nil, Withdraw, Left, ""}, {3 * s, well, nil, Announce, Stays, ""}, {9 * s, blind, []Other{a, z}, Announce, Stays, ""},
			{10 * s, blind, []Other{a, z}, Drain, Dead, "held by the floor: it is not known who else"},
			{20 * s, dead, []Other{z}, Drain, Dead, "waits"}, {23 * s, dead, []Other{z}, Withdraw, Left, ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMachine("m", vip, test.settings)
			last, since := Withdraw, began
			for _, s := range test.steps {
				s.in.Now, s.in.Others = began.Add(s.at), map[netip.Prefix][]Other{vip: s.others}
				got := m.Decide(s.in)
				if got.Action != s.action || got.Standing != s.stands || !strings.Contains(got.Reason, s.reason) {
					t.Fatalf("after %v: got %s, %s (%s); want %s, %s (…%s…)", s.at, got.Action, got.Standing, got.Reason, s.action, s.stands, s.reason)
				}
				if got.Action != last {
					last, since = got.Action, s.in.Now
				}
				if !got.Since.Equal(since) {
					t.Errorf("after %v: since %v, want %v", s.at, got.Since, since)
				}
			}
		})
	}
}
