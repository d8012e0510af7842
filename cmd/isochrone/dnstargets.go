package main

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/health/probe"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// answering are the DNS nodes that there are, and where they answer. It is guarded by the mutex of looks.
type answering map[string]answers

// answers is where a DNS node answers, as its report said last.
type answers struct {
	at   string    // address and port
	gone time.Time // since when the store has no report of it; zero while it has
	down bool      // it was, when it went
}

const (
	// deadDNS is how long a DNS node is looked for that the store has no report of any more and that does not answer.
	deadDNS = time.Hour
	// maxAnswering is how many DNS nodes are remembered, at most.
	maxAnswering = 1000
)

// hear takes what the store has as a node's report.
func (a *answering) hear(r *health.Report) {
	if _, ok := strings.CutPrefix(r.Name, "dns:"); !ok {
		return
	}
	if *a == nil {
		*a = answering{}
	}
	switch _, known := (*a)[r.Name]; {
	case r.Serves == "":
		delete(*a, r.Name)
	case known || len(*a) < maxAnswering:
		(*a)[r.Name] = answers{at: r.Serves}
	}
}

// gone takes that the store has no report of a node any more.
func (a *answering) gone(name string, down bool) {
	if known, ok := (*a)[name]; ok && known.gone.IsZero() {
		known.gone, known.down = time.Now(), down
		(*a)[name] = known
	}
}

// heardDirectly takes a report that did not come by the store: where a node answers is not believed, that it does not any more is.
func (l *looks) heardDirectly(r *health.Report) {
	if r.Serves != "" || !strings.HasPrefix(r.Name, "dns:") {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.answers, r.Name)
}

// answersAt returns where a DNS node answers, or nothing.
func (l *looks) answersAt(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[name].at
}

// served is where others ask this node as a DNS node, or nothing.
func (n *node) served() string {
	if at := n.serves.Load(); at != nil {
		return *at
	}
	return ""
}

// retire has others look at this node as a DNS node no more, because it ends.
func (n *node) retire() {
	if v := n.looks.now(); n.serves.Swap(nil) != nil && v != nil {
		v.Say()
	}
}

// dnsTargets lists the DNS nodes for probing. One that has gone from the store stays while it is down, so that people see it and others of its name
// return to their place: who ends in order is gone before anybody finds it down. One that is heard of directly stays, too.
func (n *node) dnsTargets(snap *topology.Snapshot) []probe.Target {
	l := &n.looks
	heard := map[string]bool{}
	if v := l.now(); v != nil {
		for _, known := range v.Heard() {
			heard[known] = true
		}
	}
	verdicts, now := n.Verdicts(), time.Now()
	reports := map[string]*health.Report{}
	l.mu.Lock()
	for name, at := range l.answers {
		of := health.Target{Kind: health.DNS, Name: strings.TrimPrefix(name, "dns:")}
		if !at.gone.IsZero() && !heard[name] && (!at.down || !verdicts.IsDown(of) || now.Sub(at.gone) > deadDNS) {
			delete(l.answers, name)
			continue
		}
		if addr, err := netip.ParseAddrPort(at.at); err == nil && (n.onHost || !addr.Addr().IsLoopback()) {
			reports[name] = &health.Report{Vantage: health.Vantage{Name: name}, Serves: at.at}
		}
	}
	l.mu.Unlock()
	return probe.DNSTargets(reports, snap)
}

// servesAt returns where others ask a DNS node that listens at some addresses, and takes reports at another: as it was told, else at the first
// address of its own that it does not announce by BGP, which leads to others as well. For one that listens at all addresses of the machine, that
// stands at which it takes reports.
func servesAt(told string, listens []netip.AddrPort, reports netip.Addr, announced []netip.Prefix) string {
	switch told {
	case noReports:
		return ""
	case "":
	default:
		return told
	}
	loopback := ""
	for _, at := range listens {
		addr := at.Addr().Unmap()
		if addr.IsUnspecified() && reports.IsValid() {
			addr = reports
		}
		shared := slices.ContainsFunc(announced, func(p netip.Prefix) bool { return p.Contains(addr) })
		switch text := netip.AddrPortFrom(addr, at.Port()).String(); {
		case shared || addr.IsUnspecified():
		case !addr.IsLoopback():
			return text
		case loopback == "":
			loopback = text
		}
	}
	return loopback
}

// dnsNodes tells where the DNS nodes answer that are looked at from here, by name.
func (n *node) dnsNodes() map[string]string {
	at := map[string]string{}
	if details := n.looks.details.Load(); details != nil {
		for of, t := range *details {
			if of.Kind == health.DNS && len(t.Addrs) > 0 {
				at[of.Name] = t.Addrs[0].String()
			}
		}
	}
	return at
}

// moment takes what the store tells of the moment.
func (n *node) moment(u store.Update) {
	n.looks.moment(u, func(node string) bool {
		return n.Verdicts().IsDown(health.Target{Kind: health.DNS, Name: strings.TrimPrefix(node, "dns:")})
	})
	n.hearShares(u)
	if n.announces != nil {
		n.announces.hear(u)
	}
}
