package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// The addresses of a new example world; each PoP and cluster has one of its own where the system lets it.
const (
	popNet, clusterNet = "127.0.1.", "127.0.2."
	defaultPoPPort     = 8443
	clusterPort        = 8090
)

var loopback = netip.MustParseAddr("127.0.0.1")

// place binds the sockets of the PoPs and clusters that run here, and writes into the store what it had to choose: the
// example world at the first start, other addresses where the known ones cannot be had.
func (w *world) place(ctx context.Context, snap *topology.Snapshot) error {
	t := snap.Topology
	first := len(t.Refs()) == 0 && len(snap.Faults) == 0
	pops, clusters := map[string]netip.AddrPort{}, map[string]netip.AddrPort{}
	if first {
		for i, name := range topology.ExamplePoPs {
			pops[name] = netip.AddrPortFrom(netip.MustParseAddr(popNet+fmt.Sprint(i+1)), defaultPoPPort)
		}
		for i, name := range topology.ExampleClusters {
			clusters[name] = netip.AddrPortFrom(netip.MustParseAddr(clusterNet+fmt.Sprint(i+1)), clusterPort)
		}
	} else {
		pops, clusters = localPoPs(t), localClusters(t)
	}
	if err := w.checkWithout(pops, clusters); err != nil {
		return err
	}
	bound, err := w.bindPoPs(pops)
	if err != nil {
		return err
	}
	change := store.Change{Put: map[topology.Ref]topology.Object{}, Author: "up", Message: "addresses on this machine"}
	w.popSockets = bound
	for name, l := range bound {
		if p := t.PoPs[name]; p != nil && pops[name] != l.addr() {
			moved := *p
			moved.Addresses, moved.Port = slices.Clone(p.Addresses), l.addr().Port()
			moved.Addresses[slices.Index(p.Addresses, pops[name].Addr())] = l.addr().Addr()
			change.Put[topology.Ref{Kind: topology.PoPs, Name: name}] = &moved
		}
		pops[name] = l.addr()
	}
	endpoints := map[string]string{}
	for name, wanted := range clusters {
		l, err := bindCluster(wanted)
		if err != nil {
			return fmt.Errorf("listen for cluster %s: %w", name, err)
		}
		w.clusterSockets[name] = l
		at := l.Addr().(*net.TCPAddr).AddrPort()
		endpoints[name] = "http://" + at.String()
		if c := t.Clusters[name]; c != nil && at != wanted {
			moved := *c
			moved.Endpoints = []string{endpoints[name]}
			change.Put[topology.Ref{Kind: topology.Clusters, Name: name}] = &moved
		}
	}
	if first {
		nameserver := w.options.dns.Addr()
		if nameserver.IsUnspecified() {
			nameserver = loopback
		}
		example := topology.Example(nameserver, pops, endpoints)
		for _, r := range example.Refs() {
			change.Put[r] = example.Object(r)
		}
		change.Message = "the example world"
	}
	if err := w.publishReceiptKeys(t, pops, change.Put); err != nil {
		return err
	}
	if len(change.Put) > 0 {
		_, err := w.store.Apply(ctx, change)
		if errors.Is(err, topology.ErrInvalid) { // because of what somebody else has put there, who can mend it once this runs
			w.log.Error("addresses have changed, and cannot be written into the stored topology as long as it is invalid", "changed", slices.Collect(maps.Keys(change.Put)))
		} else if err != nil {
			return fmt.Errorf("write addresses into the topology: %w", err)
		}
	}
	w.known.PoPs, w.known.Clusters = map[string]string{}, endpoints
	for name, at := range pops {
		w.known.PoPs[name] = at.String()
	}
	for _, name := range w.options.without {
		w.closeSockets(name)
	}
	return nil
}

// publishReceiptKeys puts the public keys of the receipts of the PoPs here into the topology, where they are missing: beside older ones,
// by which older receipts are checked.
func (w *world) publishReceiptKeys(t *topology.Topology, pops map[string]netip.AddrPort, put map[topology.Ref]topology.Object) error {
	for name := range pops {
		key, err := receipt.LoadOrCreateKey(w.options.dir.path("pops", name, receiptKeyFile))
		if err != nil {
			return err
		}
		public, ref := receipt.NewSigner(key).Public(), topology.Ref{Kind: topology.PoPs, Name: name}
		p, _ := put[ref].(*topology.PoP)
		if p == nil {
			p = t.PoPs[name]
		}
		if p != nil && !slices.Contains(p.ReceiptKeys, public) {
			known := *p
			known.ReceiptKeys = append(slices.Clone(p.ReceiptKeys), public)
			put[ref] = &known
		}
	}
	return nil
}

// localPoPs returns the PoPs of a topology that have a loopback address, which "isochrone up" runs.
func localPoPs(t *topology.Topology) map[string]netip.AddrPort {
	local := map[string]netip.AddrPort{}
	for name, p := range t.PoPs {
		if i := slices.IndexFunc(p.Addresses, netip.Addr.IsLoopback); i >= 0 {
			local[name] = netip.AddrPortFrom(p.Addresses[i], p.Port)
		}
	}
	return local
}

// localClusters returns the clusters of a topology whose endpoint is plain HTTP on a loopback address.
func localClusters(t *topology.Topology) map[string]netip.AddrPort {
	local := map[string]netip.AddrPort{}
	for name, c := range t.Clusters {
		u, err := url.Parse(c.Endpoints[0])
		if err != nil || u.Scheme != "http" {
			continue
		}
		if at, err := netip.ParseAddrPort(u.Host); err == nil && at.Addr().IsLoopback() {
			local[name] = at
		}
	}
	return local
}

func (w *world) checkWithout(pops, clusters map[string]netip.AddrPort) error {
	for _, name := range w.options.without {
		if !pops[name].IsValid() && !clusters[name].IsValid() {
			return fmt.Errorf("--without %s: no PoP or cluster of that name runs here; those are %s", name,
				strings.Join(append(slices.Sorted(maps.Keys(pops)), slices.Sorted(maps.Keys(clusters))...), ", "))
		}
	}
	return nil
}

// bindPoPs binds a socket pair for each PoP: at its known address, unless a flag or the system wants another.
func (w *world) bindPoPs(known map[string]netip.AddrPort) (map[string]listeners, error) {
	names := slices.SortedFunc(maps.Keys(known), func(a, b string) int {
		return cmp.Or(known[a].Compare(known[b]), cmp.Compare(a, b))
	})
	addrs := make([]netip.Addr, len(names))
	for i, name := range names {
		addrs[i] = known[name].Addr()
	}
	shared := len(names) > 1 && addrs[0] == addrs[1] // by an earlier start with --one-address
	if !w.options.oneAddress && !(shared && w.options.popPortGiven) {
		bound, err := w.bindAsKnown(names, addrs, known)
		if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return bound, err
		}
		w.log.Info("this system has no addresses such as 127.0.1.1, so all PoPs are on 127.0.0.1 with ports of their own")
	}
	bound := map[string]listeners{}
	for i, name := range names {
		at := netip.AddrPortFrom(loopback, known[name].Port())
		if !shared || w.options.popPortGiven {
			at = netip.AddrPortFrom(loopback, nthPort(w.options.popPort, i))
		}
		l, err := listen(at, "--pop-port")
		if err != nil {
			return nil, err
		}
		bound[name] = l
	}
	return bound, nil
}

// nthPort returns the i-th port from a first one on; any port stays any.
func nthPort(first uint16, i int) uint16 {
	if first == 0 {
		return 0
	}
	return first + uint16(i)
}

// bindAsKnown binds each PoP's own address, with its own port or the one of --pop-port.
func (w *world) bindAsKnown(names []string, addrs []netip.Addr, known map[string]netip.AddrPort) (map[string]listeners, error) {
	bound := map[string]listeners{}
	if w.options.popPortGiven {
		all, err := listenAll(addrs, w.options.popPort, "--pop-port")
		if err != nil {
			return nil, err
		}
		for i, name := range names {
			bound[name] = all[i]
		}
		return bound, nil
	}
	for _, name := range names {
		l, err := listen(known[name], "--pop-port")
		if err != nil {
			for _, l := range bound {
				l.close()
			}
			return nil, err
		}
		bound[name] = l
	}
	return bound, nil
}

// bindCluster binds a cluster's address, or another one when it is taken or not to be had.
func bindCluster(wanted netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", wanted.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(wanted.Addr(), 0).String())
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(loopback, 0).String())
	}
	return l, err
}

// closeSockets closes those of a PoP or cluster that does not run here.
func (w *world) closeSockets(name string) {
	if l, ok := w.popSockets[name]; ok {
		l.close()
		delete(w.popSockets, name)
	}
	if l, ok := w.clusterSockets[name]; ok {
		l.Close()
		delete(w.clusterSockets, name)
	}
}
