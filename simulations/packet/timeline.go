package packet

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/virtual"
	"github.com/isochrone/isochrone/topology"
)

// warmUp is how long everything runs before a scenario with a timeline begins: nodes hear of each other, and reach verdicts.
const warmUp = 10 * time.Second

// settleFor is how long envelopes are waited for in the end that no cluster has acknowledged yet.
const settleFor = 2 * time.Minute

// action is something that is done at a time from the begin.
type action struct {
	at time.Duration
	do func() error
}

// play runs the scenario.
func (e *engine) play(ctx context.Context) error {
	if e.watched {
		<-time.After(warmUp)
	}
	if err := e.prime(); err != nil {
		return err
	}
	e.record.mu.Lock()
	e.began = time.Now()
	e.record.mu.Unlock()
	if err := e.startClients(); err != nil {
		return err
	}
	duration := time.Duration(e.scenario.Duration)
	actions := slices.SortedStableFunc(slices.Values(e.actions()), func(a, b action) int { return int(max(-1, min(1, a.at-b.at))) })
	for second := time.Duration(0); ; second += time.Second {
		for len(actions) > 0 && actions[0].at < second+time.Second {
			<-time.After(time.Until(e.began.Add(actions[0].at)))
			if err := actions[0].do(); err != nil {
				return err
			}
			actions = actions[1:]
		}
		<-time.After(time.Until(e.began.Add(second + time.Second)))
		e.store.expire()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if duration > 0 {
			e.progress(min(1, float64(second+time.Second)/float64(duration)))
		} else {
			e.progress(min(1, float64(second+time.Second)/float64(time.Duration(len(e.clients))*apart+time.Second)))
		}
		if second+time.Second >= duration {
			break
		}
	}
	e.clientLayer.running.Wait() // posts that have begun
	e.settle()
	return ctx.Err()
}

// firstPosts is how many posts a PoP gets before a scenario begins: with each that is answered its forwarder trusts the connection with more at a time.
const firstPosts = 6

// prime has each PoP do what it does for the first posts of its life: it gets a quota, and connects to its cluster.
func (e *engine) prime() error {
	var posting errgroup.Group
	for i, p := range e.pops {
		posting.Go(func() error {
			at := netip.AddrPortFrom(p.addr, 443)
			c := intakeclient.New(intakeclient.Config{
				Roots: e.ca.Pool(), Listen: func() (net.PacketConn, error) { return e.network.ListenPacket(netip.AddrPortFrom(p.addr, 0)) },
			})
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			for n := range firstPosts {
				answer, err := c.Post(ctx, []intakeclient.Endpoint{{Target: p.name, Addr: at}}, &intakeclient.Request{
					Service: e.world.Service, Path: dataplane.Path, Body: e.body(nil, 0),
					Header: http.Header{"X-Api-Key": {e.key}, "Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprintf("first-%d-%d", i, n)}},
				})
				if err == nil && answer.Status != http.StatusAccepted {
					err = fmt.Errorf("answered %d: %s", answer.Status, answer.Body)
				}
				if err != nil {
					return fmt.Errorf("PoP %s takes no posts: %w", p.name, err)
				}
			}
			return nil
		})
	}
	err := posting.Wait()
	e.settle()
	return err
}

// settle waits until PoPs that can have forwarded all they have.
func (e *engine) settle() {
	held := func() (n int) {
		for _, p := range e.pops {
			if !e.faults.isDead(p.addr) {
				n += p.held()
			}
		}
		return n
	}
	for begin := time.Now(); held() > 0 && time.Since(begin) < settleFor; {
		<-time.After(100 * time.Millisecond)
	}
	virtual.Settle()
}

// startClients starts the resolvers and the clients.
func (e *engine) startClients() error {
	resolvers := map[int32]*resolver{}
	w := e.world
	for n := range w.Networks {
		network := &w.Networks[n]
		own := network.Resolver < 0
		r := resolvers[network.Resolver]
		if r == nil || own {
			at := stand{kind: resolverKind, number: 1<<20 + n, Location: w.Metro(n).Location}
			addr, ecs, farm := w.Asker(n), false, 1
			if !own {
				known := &w.Resolvers[network.Resolver]
				at, addr, ecs, farm = stand{kind: resolverKind, number: int(network.Resolver), Location: known.Location}, known.Addr, known.ECS, known.Farm
			}
			e.ground.put(addr, at)
			e.network.Add(&Host{Addr: addr})
			model := rtt.Default()
			var err error
			if r, err = e.startResolver(addr, func(d *dnsNode) uint32 {
				return uint32(model.RTT(at.Location, e.ground.stand(d.addr).Location) / time.Microsecond)
			}, ecs, farm); err != nil {
				return err
			}
			resolvers[network.Resolver] = r
		}
		for i := range network.Nodes {
			e.addClient(n, int(i), r)
		}
	}
	for _, c := range e.clients {
		e.clientLayer.run(func(context.Context) error { return c.run(e.stop) })
	}
	return nil
}

// addClient puts a client into a network.
func (e *engine) addClient(network, i int, r *resolver) {
	prefix := scenario.Prefix(network).Addr().As4()
	c := &client{
		engine: e, number: len(e.clients), network: network, resolver: netip.AddrPortFrom(r.addr, 53), served: -1,
		addr: netip.AddrFrom4([4]byte{prefix[0], prefix[1], prefix[2], byte(60 + i%190)}), chance: e.chance.with(uint64(forClient)).with(uint64(len(e.clients))),
	}
	if e.ground.stand(c.addr) == nil {
		m := e.world.Metro(network)
		e.ground.put(c.addr, stand{kind: clientKind, number: network, Location: m.Location, continent: m.Continent})
		bandwidth := e.scenario.World.Network.Bandwidth
		e.network.Add(&Host{Addr: c.addr, Line: Line{Up: bandwidth, Down: bandwidth}})
	}
	e.clients = append(e.clients, c)
}

// actions returns what the timeline has done when.
func (e *engine) actions() []action {
	var all []action
	until := time.Duration(e.scenario.Duration)
	for i := range e.scenario.Timeline {
		event := &e.scenario.Timeline[i]
		at, end := time.Duration(event.At), time.Duration(event.At+event.For)
		undo := func(do func() error) {
			if event.For > 0 && end < until {
				all = append(all, action{end, do})
			}
		}
		switch {
		case len(event.Lose) > 0:
			var h *happening
			all = append(all, action{at, func() error { h = e.lose(e.names(event.Lose)); return nil }})
			undo(func() error { e.revive(h); return nil })
		case event.Flap != nil:
			all = append(all, e.flapping(event.Flap, at, end, until)...)
		case event.BrownOut != nil:
			b := event.BrownOut
			var h *happening
			all = append(all, action{at, func() error {
				h = e.happens("brown-out", e.names([]string{b.PoP}))
				for _, p := range h.pops {
					e.faults.brown(popAddr(p), Fault{Delay: time.Duration(b.Delay), Loss: b.Loss})
				}
				return nil
			}})
			undo(func() error {
				for _, p := range h.pops {
					e.faults.brown(popAddr(p), Fault{})
				}
				e.over(h)
				return nil
			})
		case len(event.Drain) > 0:
			all = append(all, action{at, func() error {
				return e.drain(fmt.Sprintf("event %d", i), e.largestIn(event.Drain), time.Duration(event.For))
			}})
		case len(event.Partition) > 0:
			var h *happening
			names := event.Partition
			all = append(all, action{at, func() error {
				names = e.largestIn(event.Partition)
				h = e.happens("partition", e.inPartition(names), names...)
				e.faults.part(names, true)
				return nil
			}})
			undo(func() error { e.faults.part(names, false); e.over(h); return nil })
		case event.Edit != "":
			before := e.topology
			all = append(all, action{at, func() error { before = e.store.first().Topology; return e.edit(event.Edit) }})
			undo(func() error { return e.replace(before, "the edit is taken back") })
		case event.EtcdAway:
			all = append(all, action{at, func() error { e.etcdAway(true); return nil }})
			undo(func() error { e.etcdAway(false); return nil })
		case event.Upgrade != nil:
			all = append(all, e.upgrading(event.Upgrade, at)...)
		case event.Crowd != nil:
			all = append(all, action{at, func() error {
				e.note("clients near %s post %v times as much", event.Crowd.Near, event.Crowd.Factor)
				return nil
			}})
		}
	}
	return all
}

// flapping are the deaths and returns of a PoP.
func (e *engine) flapping(f *scenario.Flap, at, end, until time.Duration) (all []action) {
	if end <= at || end > until {
		end = until
	}
	var h *happening
	for t := at; t < end; t += time.Duration(f.Down + f.Up) {
		all = append(all, action{t, func() error { h = e.lose(e.names([]string{f.PoP})); return nil }})
		if back := min(t+time.Duration(f.Down), end); back < until {
			all = append(all, action{back, func() error { e.revive(h); return nil }})
		}
	}
	return all
}

// names returns the numbers of PoPs.
func (e *engine) names(names []string) (pops []int) {
	for _, name := range e.largestIn(names) {
		if p, ok := e.world.PoP(name); ok {
			pops = append(pops, p)
		}
	}
	return pops
}

// largestIn replaces the word for the largest PoP by its name.
func (e *engine) largestIn(names []string) []string {
	names = slices.Clone(names)
	for i, name := range names {
		if name == scenario.Largest {
			names[i] = e.world.PoPs[e.largest()].Name
		}
	}
	return names
}

func (e *engine) inPartition(names []string) (pops []int) {
	for i := range e.world.PoPs {
		if e.faults.inside(popAddr(i), names) {
			pops = append(pops, i)
		}
	}
	return pops
}

func (e *engine) lose(pops []int) *happening {
	h := e.happens("death", pops)
	for _, p := range pops {
		e.faults.kill(popAddr(p), true)
	}
	return h
}

func (e *engine) revive(h *happening) {
	for _, p := range h.pops {
		e.faults.kill(popAddr(p), false)
	}
	e.over(h)
}

func (e *engine) etcdAway(away bool) {
	e.store.leave(away)
	e.faults.kill(etcdAddr, away)
	e.note("etcd is %s", map[bool]string{true: "away", false: "back"}[away])
}

// drain has operators drain PoPs for a while, by overrides in the store. 0 is for good.
func (e *engine) drain(why string, names []string, long time.Duration) error {
	if long == 0 {
		long = 1000 * time.Hour
	}
	return e.store.apply(func(old *topology.Snapshot) (*topology.Snapshot, error) {
		snap := *old
		snap.Revision++
		snap.Overrides = maps.Clone(old.Overrides)
		for _, name := range names {
			e.note("%s is drained", name)
			snap.Overrides[why+" "+name] = &topology.Override{
				Schema: 1, Kind: topology.Drain, PoP: name, Reason: why, Author: "simulation", Created: time.Now(), Expires: time.Now().Add(long),
			}
		}
		return &snap, nil
	})
}

// drainBefore is how long a PoP is drained, beside the time to live of answers, before its process ends.
const drainBefore = 10 * time.Second

// upgrading are the restarts of all PoPs, a group at a time: each is drained, its process ends and, after a while, another takes its place.
func (e *engine) upgrading(u *scenario.Upgrade, at time.Duration) (all []action) {
	drained := time.Duration(e.topology.Services[e.world.Service].Steering.TTL) + drainBefore
	for from := 0; from < len(e.world.PoPs); from += u.AtOnce {
		group := e.pops[from:min(from+u.AtOnce, len(e.pops))]
		var names []string
		for _, p := range group {
			names = append(names, p.name)
		}
		all = append(all, action{at, func() error { return e.drain("upgrade", names, drained+time.Duration(u.Away)) }}, action{at + drained, func() error {
			for _, p := range group {
				e.popLayer.run(func(ctx context.Context) error { return e.restart(ctx, p, time.Duration(u.Away)) })
			}
			return nil
		}})
		at += drained + time.Duration(u.Away+u.Pause)
	}
	return all
}

// restart ends the process of a PoP and starts another after a while, unless the scenario has ended.
func (e *engine) restart(ctx context.Context, p *popNode, away time.Duration) error {
	e.note("the process of %s ends", p.name)
	if err := p.end(); err != nil {
		return err
	}
	if !wait(ctx, away) {
		return nil
	}
	e.note("%s has another process", p.name)
	if err := e.startPoP(p); err != nil || ctx.Err() == nil {
		return err
	}
	return p.end() // all has ended meanwhile
}

// edit merges YAML into the topology in the store.
func (e *engine) edit(text string) error {
	before := e.store.first().Topology
	var base, change map[string]any
	if err := yaml.Unmarshal(before.Marshal(), &base); err != nil {
		return err
	}
	if err := yaml.Unmarshal([]byte(text), &change); err != nil {
		return fmt.Errorf("edit: %w", err)
	}
	merged, err := yaml.Marshal(merge(base, change))
	if err != nil {
		return err
	}
	after, err := topology.Parse(merged)
	if err != nil {
		return fmt.Errorf("edit: %w", err)
	}
	if faults := after.Validate(); len(faults) > 0 {
		return fmt.Errorf("edit: %v", faults[0])
	}
	for name := range after.PoPs {
		if _, known := e.world.PoP(name); !known {
			return fmt.Errorf("edit: PoP %s: %w: it would have to be started", name, ErrUnsupported)
		}
	}
	return e.replace(after, "the topology is edited")
}

func (e *engine) replace(after *topology.Topology, what string) error {
	e.note("%s", what)
	return e.store.apply(func(old *topology.Snapshot) (*topology.Snapshot, error) {
		snap := *old
		snap.Revision++
		snap.Topology, snap.Good = after, snap.Revision
		return &snap, nil
	})
}

// merge puts the keys of a change over those of what there is, deep; null takes a key away.
func merge(base, change map[string]any) map[string]any {
	merged := maps.Clone(base)
	if merged == nil {
		merged = map[string]any{}
	}
	for key, value := range change {
		below, isMap := value.(map[string]any)
		was, _ := merged[key].(map[string]any)
		switch {
		case value == nil:
			delete(merged, key)
		case isMap:
			merged[key] = merge(was, below)
		default:
			merged[key] = value
		}
	}
	return merged
}
