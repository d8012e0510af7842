package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// TestAnnouncements has a node say how it stands, and hear that back, and what others say.
func TestAnnouncements(t *testing.T) {
	vip := netip.MustParsePrefix("192.0.2.0/24")
	a := newAnnouncements("pop:sin1", make(chan struct{}, 1))
	if _, confirmed := a.others(); confirmed || len(a.text()) > 0 {
		t.Error("something is confirmed before anything was said")
	}
	a.say(map[netip.Prefix]bgp.Standing{vip: bgp.Wants})
	select {
	case <-a.changed:
	default:
		t.Error("nobody was told that there is something to say")
	}
	a.hear(store.Update{Whole: true, Put: map[string][]byte{
		"announces/pop:fra1": []byte(`{"192.0.2.0/24": "stays"}`), "announces/pop:gru1": []byte(`{"192.0.2.0/24": "dead"}`),
		"announces/pop:old": []byte("?"), "reports/pop:fra1": []byte("{}"),
	}})
	others, confirmed := a.others()
	want := map[netip.Prefix][]bgp.Other{vip: {{Node: "pop:fra1", Standing: bgp.Stays}, {Node: "pop:gru1", Standing: bgp.Dead}}}
	if diff := cmp.Diff(want, others, cmpopts.EquateComparable(netip.Prefix{})); diff != "" || confirmed {
		t.Errorf("confirmed %v (-want +got):\n%s", confirmed, diff)
	}
	a.hear(store.Update{Put: map[string][]byte{"announces/pop:sin1": a.text()}, Delete: []string{"announces/pop:gru1", "shares/x"}})
	if others, confirmed = a.others(); !confirmed || len(others[vip]) != 1 {
		t.Errorf("got %v, %v", others, confirmed)
	}
	a.say(map[netip.Prefix]bgp.Standing{vip: bgp.Left})
	if _, confirmed = a.others(); confirmed {
		t.Error("what was said last is confirmed before it was heard back")
	}
	a.hear(store.Update{Whole: true})
	if others, _ = a.others(); len(others) > 0 {
		t.Errorf("got %v of an empty store", others)
	}
}

func TestWishes(t *testing.T) {
	now := time.Now()
	override := func(kind topology.OverrideKind, verdict topology.ForcedVerdict) map[string]*topology.Override {
		return map[string]*topology.Override{"o": {Schema: 1, Kind: kind, PoP: "sin1", Verdict: verdict, Reason: "because", Created: now, Expires: now.Add(time.Hour)}}
	}
	for name, test := range map[string]struct {
		state     topology.State
		overrides map[string]*topology.Override
		want      bgp.Wish
		why       string
	}{
		"none":                {topology.Active, nil, bgp.AsHealth, ""},
		"drained":             {topology.Active, override(topology.Drain, ""), bgp.GoAway, "because"},
		"draining":            {topology.Draining, nil, bgp.GoAway, "the PoP is draining"},
		"disabled":            {topology.Disabled, override(topology.Force, topology.ForceUp), bgp.MustGo, "the PoP is disabled"},
		"forced down":         {topology.Draining, override(topology.Force, topology.ForceDown), bgp.MustGo, "forced down: because"},
		"forced up":           {topology.Active, override(topology.Force, topology.ForceUp), bgp.MustStay, "forced up: because"},
		"draining, forced up": {topology.Draining, override(topology.Force, topology.ForceUp), bgp.GoAway, "the PoP is draining"},
	} {
		snap := &topology.Snapshot{Topology: &topology.Topology{PoPs: map[string]*topology.PoP{"sin1": {State: test.state}}}, Overrides: test.overrides}
		if got, why := wishFor(snap, "sin1", now); got != test.want || why != test.why {
			t.Errorf("%s: got %q (%s), want %q (%s)", name, got, why, test.want, test.why)
		}
	}
	if got, _ := wishFor(&topology.Snapshot{Topology: &topology.Topology{}}, "sin1", now); got != bgp.MustGo {
		t.Errorf("got %q for a PoP that is not there", got)
	}
}

// TestBGPFiles reads the files of the deployment, and passwords, of which an error tells nothing.
func TestBGPFiles(t *testing.T) {
	plan, err := readBGPFile("../../deploy/bgp.yaml", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")})
	if err != nil || len(plan.Prefixes) == 0 || !plan.RouterID.IsValid() {
		t.Errorf("got %+v, %v", plan, err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "passwords")
	for text, want := range map[string]string{
		"leaf1: secret-1\nleaf2: secret-2": "",
		"leaf1: [secret-1]":                "does not have peers' names with passwords",
		"secret-1":                         "does not have peers' names with passwords",
		"leaf1: ''":                        "leaf1: the password is not 1 to 80 bytes long",
		"leaf1: " + strings.Repeat("secret-1", 11): "leaf1: the password is not 1 to 80 bytes long",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		passwords, err := readBGPPasswords(path)
		switch {
		case want == "" && (err != nil || passwords["leaf2"] != "secret-2"):
			t.Errorf("got %v, %v", passwords, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-1")):
			t.Errorf("%s: got %v", text, err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readBGPPasswords(path); err == nil {
		t.Error("a file that everybody can read is taken")
	}
	a := &announcer{node: &node{}, name: "sin1"}
	if _, ok := a.password("leaf1"); ok {
		t.Error("a password comes from nowhere")
	}
	a.passwords.Store(&map[string]string{"leaf1": "x"})
	if got, ok := a.password("leaf1"); !ok || got != "x" {
		t.Errorf("got %q", got)
	}
}
