package bgp

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// TestSpeakerEnds runs a speaker whose router is not there: it tells so, is given another plan and none, says nothing of a password, and
// leaves nothing behind.
func TestSpeakerEnds(t *testing.T) {
	with := orders{File: `
asn: 64512
router_id: 192.0.2.9
announces: [198.18.53.0/24]
rise: 1s
drain: 1s
peers: {nobody: {address: 127.0.0.1, port: 1, local_address: 127.0.0.1, asn: 64500, multihop: 2}}
`, Service: good, Verdict: good, Known: true}
	plan := with.plan()
	plans, said := make(chan Plan, 1), make(chan Standing, 100)
	s := New(Config{
		Node: "n", Interval: time.Millisecond, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Plan: func() Plan {
			select {
			case plan = <-plans:
			default:
			}
			return plan
		},
		Inputs:   func() Inputs { return with.inputs(plan.Prefixes) },
		Password: func(string) (string, bool) { return "", false },
		Told: func(all map[netip.Prefix]Standing) {
			for _, one := range all {
				said <- one
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for _, want := range []Standing{Left, Stays} {
		if got := <-said; got != want {
			t.Errorf("told the others %s, want %s", got, want)
		}
	}
	until(t, "the session is tried", func() bool {
		one := s.Status().Sessions
		return len(one) == 1 && one[0].Peer == "nobody" && one[0].State != Established
	})
	plans <- Plan{}
	until(t, "nothing is announced without a plan", func() bool { return len(s.Status().Prefixes) == 0 && len(s.Status().Sessions) == 0 })
	plans <- with.plan()
	until(t, "announced again", func() bool { p := s.Status().Prefixes; return len(p) == 1 && p[0].Action == Announce })
	s.Hurry()
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("Run: %v", err)
	}
}
