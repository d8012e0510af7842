package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/topology"
)

// How often a node that announces probes its own service, and how long that may take.
const (
	ownProbeInterval = 500 * time.Millisecond
	ownProbeTimeout  = time.Second
)

// announcerOf returns what has a PoP announce its VIPs, to the peers that the topology names.
func (n *node) announcerOf(process *popProcess, passwords string) (*announcer, error) {
	name := process.name
	a := &announcer{
		node: n, name: name, plan: popPlan(n, name),
		wish: func() (bgp.Wish, string) { return wishFor(n.Snapshot(), name, time.Now()) },
	}
	a.allowed = n.allowedByVerdict(health.Target{Kind: health.PoP, Name: name})
	a.probe = func(ctx context.Context, found func(bgp.Check)) error { return n.probeOwnPoP(ctx, process, found) }
	a.open()
	return a, a.readPasswords(passwords)
}

// allowedByVerdict returns what tells whether the verdict of all vantages on this node lets it announce, and the reason. One that nobody judges
// may: it looks at itself.
func (n *node) allowedByVerdict(self health.Target) func() (bool, string) {
	return func() (bool, string) {
		v, judged := n.Verdicts()[self]
		if !judged {
			return true, "nobody judges"
		}
		return v.Status != health.Down, v.Reason
	}
}

// popPlan returns what tells what a PoP announces as the topology is.
func popPlan(n *node, name string) func() bgp.Plan {
	var last *topology.Snapshot
	var plan bgp.Plan
	return func() bgp.Plan {
		snap := n.Snapshot()
		if snap == last {
			return plan
		}
		last, plan = snap, bgp.Plan{}
		if p := snap.Topology.PoPs[name]; p != nil && p.BGP != nil {
			id, _ := p.BGP.RouterIDOf(p.Addresses) // valid topologies have one
			plan = bgp.Plan{BGP: p.BGP, Prefixes: p.Announces, RouterID: id}
		}
		return plan
	}
}

// probeOften probes the own service until ctx ends.
func probeOften(ctx context.Context, once func(context.Context) bgp.Check, found func(bgp.Check)) error {
	look := time.NewTicker(ownProbeInterval)
	defer look.Stop()
	for {
		probing, cancel := context.WithTimeout(ctx, ownProbeTimeout)
		check := once(probing)
		if cancel(); ctx.Err() != nil {
			return ctx.Err()
		}
		found(check)
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// probeOwnPoP posts probes to the PoP of this process, at each address at which it serves, until ctx ends.
func (n *node) probeOwnPoP(ctx context.Context, process *popProcess, found func(bgp.Check)) error {
	roots, err := n.roots()
	if err != nil {
		return err
	}
	keys := n.probeKeys()
	return probeOften(ctx, func(ctx context.Context) bgp.Check {
		if p := n.Snapshot().Topology.PoPs[process.name]; p == nil || p.BGP == nil {
			return bgp.Check{Reason: "there is nothing to announce"}
		}
		if len(keys()) == 0 {
			return bgp.Check{Reason: "it cannot be probed: there is no key for it in " + n.dir.path(probeKeyFile) + ", and none is sealed"}
		}
		target, err := ownTarget(n.Snapshot().Topology, process)
		if err != nil {
			return bgp.Check{Reason: err.Error()}
		}
		prober := probe.New(probe.Config{Roots: roots, Keys: keys})
		defer prober.Close()
		seen := prober.Probe(ctx, target)
		return bgp.Check{OK: seen.OK, Reason: seen.Reason}
	}, found)
}

// ownTarget returns where and how a PoP is probed by itself. All VIPs that it would announce must be served here.
func ownTarget(t *topology.Topology, process *popProcess) (probe.Target, error) {
	p, service := t.PoPs[process.name], firstService(t, process.name)
	if p == nil || service == "" {
		return probe.Target{}, errors.New("the PoP offers no service")
	}
	served := process.addresses()
	for _, vip := range p.VIPs {
		if !slices.ContainsFunc(served, func(at netip.AddrPort) bool { return at.Addr() == vip }) {
			return probe.Target{}, fmt.Errorf("the VIP %v is not served here: add it to the loopback interface and start anew", vip)
		}
	}
	return probe.Target{
		Target: health.Target{Kind: health.PoP, Name: process.name}, Service: service, Path: dataplane.Path,
		Body: probeBody(t.Services[service]), How: t.Services[service].Probed(), Addrs: served,
	}, nil
}

// addresses returns where the PoP serves. For one that serves at all addresses of the machine that of the loopback interface stands.
func (p *popProcess) addresses() []netip.AddrPort {
	var all []netip.AddrPort
	for _, socket := range p.sockets {
		at, err := netip.ParseAddrPort(socket.LocalAddr().String())
		if err != nil {
			continue
		}
		if at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port()); at.Addr().IsUnspecified() {
			loopback := netip.MustParseAddr("127.0.0.1")
			if at.Addr().Is6() {
				loopback = netip.IPv6Loopback()
			}
			at = netip.AddrPortFrom(loopback, at.Port())
		}
		all = append(all, at)
	}
	return all
}

// dnsAnnouncer has a DNS node announce its addresses, as a file of its own says.
type dnsAnnouncer struct {
	*announcer
	current atomic.Pointer[bgp.Plan]
}

// readBGPFile reads what a DNS node announces, and to whom.
func readBGPFile(path string, listen []netip.AddrPort) (bgp.Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return bgp.Plan{}, fmt.Errorf("bgp-config: %w", err)
	}
	var own []netip.Addr
	for _, at := range listen {
		own = append(own, at.Addr())
	}
	file, faults := topology.ParseBGPFile(text, own)
	if len(faults) > 0 {
		var all []error
		for _, fault := range faults {
			all = append(all, fmt.Errorf("bgp-config: %s: %v", path, fault))
		}
		return bgp.Plan{}, errors.Join(all...)
	}
	id, _ := file.RouterIDOf(own)
	return bgp.Plan{BGP: &file.BGP, RouterID: id, Prefixes: file.Announces}, nil
}

// announcerOf returns what has the DNS node announce, nil for one that does not.
func (d *dnsNode) announcerOf() (*dnsAnnouncer, error) {
	if d.start.bgp == "" {
		return nil, nil
	}
	known := d.start.follow.knownAs(d.start.dir, "dns", d.start.name)
	d.node.announces = newAnnouncements(known, d.node.looks.changed)
	a := &dnsAnnouncer{announcer: &announcer{
		node: d.node, name: strings.TrimPrefix(known, "dns:"), wish: func() (bgp.Wish, string) { return bgp.AsHealth, "" }, probe: d.probeOwn,
		allowed: d.node.allowedByVerdict(health.Target{Kind: health.DNS, Name: d.node.name}),
	}}
	a.plan = func() bgp.Plan { return *a.current.Load() }
	a.open()
	return a, a.reload(d.start)
}

// reload reads the files anew. It may be called on nil.
func (a *dnsAnnouncer) reload(f *dnsFlags) error {
	if a == nil {
		return nil
	}
	plan, err := readBGPFile(f.bgp, f.listen)
	if err := errors.Join(err, a.readPasswords(f.bgpPasswords)); err != nil {
		return err
	}
	a.current.Store(&plan)
	return nil
}

// probeOwn asks this node for the SOA record of its first zone, over UDP and at each address, until ctx ends.
func (d *dnsNode) probeOwn(ctx context.Context, found func(bgp.Check)) error {
	return probeOften(ctx, func(ctx context.Context) bgp.Check {
		if err := d.askOwn(ctx); err != nil {
			return bgp.Check{Reason: err.Error()}
		}
		return bgp.Check{OK: true, Reason: "answers questions"}
	}, found)
}

func (d *dnsNode) askOwn(ctx context.Context) error {
	snap := d.node.Snapshot()
	if snap == nil || len(snap.Topology.Zones) == 0 {
		return errors.New("there is no zone to answer for")
	}
	zone := ""
	for name := range snap.Topology.Zones {
		if zone == "" || name < zone {
			zone = name
		}
	}
	question := new(mdns.Msg).SetQuestion(mdns.Fqdn(zone), mdns.TypeSOA)
	question.RecursionDesired = false
	client := &mdns.Client{Timeout: time.Second}
	for _, l := range d.bound.TCP { // UDP has the same ones
		at := l.Addr().String()
		if bound, err := netip.ParseAddrPort(at); err == nil && bound.Addr().IsUnspecified() {
			at = strings.NewReplacer("0.0.0.0:", "127.0.0.1:", "[::]:", "[::1]:").Replace(at)
		}
		answer, _, err := client.ExchangeContext(ctx, question, at)
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", at, err)
		}
		if answer.Rcode != mdns.RcodeSuccess || !answer.Authoritative || len(answer.Answer) == 0 {
			return fmt.Errorf("%s answers %s to the question for the SOA record of %s", at, mdns.RcodeToString[answer.Rcode], zone)
		}
	}
	return nil
}
