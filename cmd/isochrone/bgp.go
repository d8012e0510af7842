package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// bgpSecret begins the names of sealed passwords of BGP peers: bgp.NODE.PEER, or bgp.PEER for all nodes that have a peer of that name.
const bgpSecret = "bgp."

// announcer has a node announce its prefixes by BGP, for as long as its service works.
type announcer struct {
	node    *node
	name    string // of the PoP, or of the machine
	plan    func() bgp.Plan
	wish    func() (bgp.Wish, string)                              // of operators
	probe   func(ctx context.Context, found func(bgp.Check)) error // the node's own service, from end to end, until ctx ends
	speaker *bgp.Speaker

	// allowed is what the verdict of all vantages says, with the reason; nil for what nobody judges.
	allowed func() (bool, string)

	passwords atomic.Pointer[map[string]string] // of the file
	found     atomic.Pointer[finding]
}

// finding is what the last probe of the own service has found.
type finding struct {
	bgp.Check
	at time.Time
}

// staleProbe is how old the last probe may be; then the service is taken not to work.
const staleProbe = 5 * time.Second

// open makes the speaker, which does nothing yet.
func (a *announcer) open() {
	a.speaker = bgp.New(bgp.Config{
		Node: a.node.announces.name, Plan: a.plan, Inputs: a.inputs, Password: a.password, Told: a.node.announces.say, Log: a.node.log,
	})
}

// start has the node announce, on a layer above its service: it drains before the service ends.
func (a *announcer) start(on *layer) {
	on.run("BGP", func(ctx context.Context) error {
		probing := func(ctx context.Context) error {
			return a.probe(ctx, func(c bgp.Check) { a.found.Store(&finding{c, time.Now()}) })
		}
		return runBeside(ctx, probing, a.speaker.Run)
	})
}

// hurry has the speaker end without draining: a successor takes over. It may be called on nil.
func (a *announcer) hurry() {
	if a != nil {
		a.speaker.Hurry()
	}
}

// inputs tells what the speaker decides on.
func (a *announcer) inputs() bgp.Inputs {
	in := bgp.Inputs{Service: bgp.Check{Reason: "it has not been probed yet"}, Verdict: bgp.Check{OK: true, Reason: "nobody judges"}}
	if f := a.found.Load(); f != nil {
		if in.Service = f.Check; time.Since(f.at) > staleProbe {
			in.Service = bgp.Check{Reason: fmt.Sprintf("the last probe is %v old", time.Since(f.at).Truncate(time.Second))}
		}
	}
	if a.allowed != nil {
		in.Verdict.OK, in.Verdict.Reason = a.allowed()
	}
	in.Operator, in.Why = a.wish()
	var confirmed bool
	in.Others, confirmed = a.node.announces.others()
	in.Known = confirmed && a.node.contact.up()
	return in
}

// password returns that of a peer: the sealed one of this node, else the sealed one of all nodes, else that of the file.
func (a *announcer) password(peer string) (string, bool) {
	for _, name := range []string{bgpSecret + a.name + "." + peer, bgpSecret + peer} {
		if secret, ok := a.node.secrets.value(name); ok {
			return string(secret), true
		}
	}
	if file := a.passwords.Load(); file != nil {
		password, ok := (*file)[peer]
		return password, ok
	}
	return "", false
}

// readPasswords reads the file of passwords; an empty path is none.
func (a *announcer) readPasswords(path string) error {
	if path == "" {
		return nil
	}
	passwords, err := readBGPPasswords(path)
	if err == nil {
		a.passwords.Store(&passwords)
	}
	return err
}

// registerBGPPasswords adds the flag by which a node gets passwords that are not sealed in the store.
func registerBGPPasswords(flags *pflag.FlagSet, path *string) {
	flags.StringVar(path, "bgp-password-file", "", "YAML `file` of BGP peers' passwords by the peers' names, of mode 0600 (better: sealed secrets)")
}

// readBGPPasswords reads passwords of peers. An error does not tell one.
func readBGPPasswords(path string) (map[string]string, error) {
	text, err := privatefile.Read(path, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("bgp-password-file: %w", err)
	}
	passwords := map[string]string{}
	if yaml.NewDecoder(bytes.NewReader(text)).Decode(&passwords) != nil { // its error could show one
		return nil, fmt.Errorf("bgp-password-file: %s does not have peers' names with passwords, such as leaf1: secret", path)
	}
	for peer, password := range passwords {
		if err := checkBGPPassword(password); err != nil {
			return nil, fmt.Errorf("bgp-password-file: %s: %s: %w", path, peer, err)
		}
	}
	return passwords, nil
}

// checkBGPPassword checks a password of TCP MD5, whose length is bounded by the system.
func checkBGPPassword(password string) error {
	if password == "" || len(password) > 80 {
		return errors.New("the password is not 1 to 80 bytes long")
	}
	return nil
}

// announcements are what nodes say that they announce by BGP: this one, if it does, and the others as far as they are heard. They are safe for concurrent
// use.
type announcements struct {
	name    string        // of this node; empty for one that announces nothing, and hears others
	changed chan struct{} // has something after this node has something new to say; shared with what it says as a vantage

	mu    sync.Mutex
	own   []byte // empty: nothing yet
	heard map[string]string
}

// announcesPrefix begins the keys of what nodes say.
const announcesPrefix = "announces/"

// newAnnouncements returns those of a node that others know by a name.
func newAnnouncements(name string, changed chan struct{}) *announcements {
	return &announcements{name: name, changed: changed, heard: map[string]string{}}
}

// say has the others told how this node stands.
func (a *announcements) say(all map[netip.Prefix]bgp.Standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = bgp.EncodeStandings(all)
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// text returns what is to be said, empty for nothing.
func (a *announcements) text() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.own
}

// hear takes what the store has of all nodes, this one too.
func (a *announcements) hear(u store.Update) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.Whole {
		clear(a.heard)
	}
	for key, value := range u.Put {
		if len(key) > len(announcesPrefix) && key[:len(announcesPrefix)] == announcesPrefix {
			a.heard[key[len(announcesPrefix):]] = string(value)
		}
	}
	for _, key := range u.Delete {
		if len(key) > len(announcesPrefix) {
			delete(a.heard, key[len(announcesPrefix):])
		}
	}
}

// others returns what other nodes say, by prefix, and whether they can know how this node stands: the store has said it back.
func (a *announcements) others() (all map[netip.Prefix][]bgp.Other, confirmed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all = map[netip.Prefix][]bgp.Other{}
	for _, node := range slices.Sorted(maps.Keys(a.heard)) {
		if node == a.name {
			continue
		}
		standings, err := bgp.ParseStandings([]byte(a.heard[node]))
		if err != nil { // of nobody, or of a much newer program: not to be relied on
			continue
		}
		for prefix, standing := range standings {
			all[prefix] = append(all[prefix], bgp.Other{Node: node, Standing: standing})
		}
	}
	return all, len(a.own) > 0 && a.heard[a.name] == string(a.own)
}

// all tells what nodes announce, by name.
func (a *announcements) all() (all []controlplane.AnnouncerStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(a.heard)) {
		standings, err := bgp.ParseStandings([]byte(a.heard[node]))
		if err != nil || len(standings) == 0 {
			continue
		}
		one := controlplane.AnnouncerStatus{Node: node}
		for _, prefix := range slices.SortedFunc(maps.Keys(standings), netip.Prefix.Compare) {
			one.Prefixes = append(one.Prefixes, controlplane.AnnouncedRoute{Prefix: prefix, Standing: string(standings[prefix])})
		}
		all = append(all, one)
	}
	return all
}

// wishFor says what operators want of a PoP.
func wishFor(snap *topology.Snapshot, pop string, now time.Time) (bgp.Wish, string) {
	decided := topology.Decide(snap.Overrides, now).PoP(pop)
	verdict, forced := decided.Verdict()
	p := snap.Topology.PoPs[pop]
	switch {
	case p == nil:
		return bgp.MustGo, "the topology does not have this PoP any more"
	case p.State == topology.Disabled:
		return bgp.MustGo, "the PoP is disabled"
	case forced && verdict == topology.ForceDown:
		return bgp.MustGo, "forced down: " + decided.Force.Reason
	case decided.Drained():
		return bgp.GoAway, decided.Drain.Reason
	case p.State == topology.Draining:
		return bgp.GoAway, "the PoP is draining"
	case forced && verdict == topology.ForceUp:
		return bgp.MustStay, "forced up: " + decided.Force.Reason
	}
	return bgp.AsHealth, ""
}
