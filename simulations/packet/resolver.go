package packet

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolver asks our DNS servers for its clients, by a model: it asks the nearest server and, without an answer within half a second, the next one,
// which it then prefers for a while; it keeps answers for their TTL, with a client subnet for the scope (RFC 7871), in each machine of a farm apart.
type resolver struct {
	engine  *engine
	addr    netip.Addr
	servers []netip.AddrPort // the nearest first
	ecs     bool

	mu       sync.Mutex
	machines []map[question][]*kept
	shunned  map[netip.AddrPort]time.Time // until when
	asked    uint64
	id       uint16
}

type question struct {
	name  string
	qtype uint16
}

// kept is an answer in a cache.
type kept struct {
	answer *dns.Msg
	scope  netip.Prefix // whom it is for
	begin  time.Time
	end    time.Time
}

const (
	serverPatience = 500 * time.Millisecond
	shunFor        = 10 * time.Second
	resolverTries  = 4
	subnetBits     = 24 // of a client's address that is sent
)

// startResolver starts a resolver at an address.
func (e *engine) startResolver(addr netip.Addr, at func(dns *dnsNode) uint32, ecs bool, farm int) (*resolver, error) {
	r := &resolver{engine: e, addr: addr, ecs: ecs, shunned: map[netip.AddrPort]time.Time{}}
	for range max(farm, 1) {
		r.machines = append(r.machines, map[question][]*kept{})
	}
	nodes := slices.Clone(e.dns)
	slices.SortStableFunc(nodes, func(a, b *dnsNode) int { return cmp.Compare(at(a), at(b)) })
	for _, d := range nodes {
		r.servers = append(r.servers, netip.AddrPortFrom(d.addr, 53))
	}
	conn, err := e.network.ListenPacket(netip.AddrPortFrom(addr, 53))
	if err != nil {
		return nil, err
	}
	e.dnsLayer.run(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return nil
			}
			q := new(dns.Msg)
			if q.Unpack(buffer[:n]) != nil || len(q.Question) != 1 {
				continue
			}
			e.dnsLayer.running.Go(func() { r.serve(ctx, conn, from, q) })
		}
	})
	return r, nil
}

// serve answers one question of a client.
func (r *resolver) serve(ctx context.Context, conn net.PacketConn, from net.Addr, q *dns.Msg) {
	client, now := addrOf(from).Addr(), time.Now()
	key := question{q.Question[0].Name, q.Question[0].Qtype}
	r.mu.Lock()
	r.asked++
	machine := r.machines[int(r.engine.chance.with(uint64(forFarm)).of(r.addr, client, now).with(r.asked).uniform()*float64(len(r.machines)))]
	k := find(machine, key, client, now)
	r.mu.Unlock()
	r.engine.asked(k != nil)
	if k == nil {
		if k = r.ask(ctx, key, client); k != nil {
			r.keep(machine, key, k)
		}
	}
	answer := new(dns.Msg).SetReply(q)
	if k == nil {
		answer.Rcode = dns.RcodeServerFailure
	} else {
		answer.Rcode = k.answer.Rcode
		age := uint32(time.Since(k.begin) / time.Second)
		for _, rr := range k.answer.Answer {
			rr = dns.Copy(rr)
			rr.Header().Ttl -= min(age, rr.Header().Ttl)
			answer.Answer = append(answer.Answer, rr)
		}
	}
	answer.RecursionAvailable = true
	if text, err := answer.Pack(); err == nil {
		_, _ = conn.WriteTo(text, from)
	}
}

// find returns what is kept for a client, and drops what is too old.
func find(machine map[question][]*kept, key question, client netip.Addr, now time.Time) *kept {
	machine[key] = slices.DeleteFunc(machine[key], func(k *kept) bool { return !now.Before(k.end) })
	for _, k := range machine[key] {
		if k.scope.Contains(client) {
			return k
		}
	}
	return nil
}

// keep keeps an answer, in place of those within its scope.
func (r *resolver) keep(machine map[question][]*kept, key question, k *kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(machine[key])
	machine[key] = append(slices.DeleteFunc(machine[key], func(o *kept) bool { return k.scope.Bits() <= o.scope.Bits() && k.scope.Contains(o.scope.Addr()) }), k)
	r.engine.keeps(len(machine[key]) - before)
}

// ask asks our servers, and returns nil when none answers.
func (r *resolver) ask(ctx context.Context, key question, client netip.Addr) *kept {
	for try := range resolverTries {
		server, id := r.next(try)
		m := new(dns.Msg).SetQuestion(key.name, key.qtype)
		m.RecursionDesired, m.Id = false, id
		m.SetEdns0(1232, false)
		if r.ecs {
			p := netip.PrefixFrom(client, subnetBits).Masked()
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
				Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: subnetBits, Address: p.Addr().AsSlice(),
			})
		}
		answer := r.exchange(server, m)
		if ctx.Err() != nil {
			return nil
		}
		if answer == nil {
			r.mu.Lock()
			r.shunned[server] = time.Now().Add(shunFor)
			r.mu.Unlock()
			continue
		}
		return r.kept(answer, client)
	}
	return nil
}

// next returns which server is to be asked, and an id.
func (r *resolver) next(try int) (netip.AddrPort, uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id++
	var good, bad []netip.AddrPort
	for _, s := range r.servers {
		if time.Now().Before(r.shunned[s]) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	if len(good) > 0 {
		return good[0], r.id
	}
	return bad[try%len(bad)], r.id // none has answered lately
}

// exchange sends a question and waits for its answer.
func (r *resolver) exchange(server netip.AddrPort, m *dns.Msg) *dns.Msg {
	conn, err := r.engine.network.DialPacket(r.addr, server)
	if err != nil {
		return nil
	}
	defer conn.Close()
	text, err := m.Pack()
	if err != nil {
		return nil
	}
	if _, err := conn.Write(text); err != nil {
		return nil
	}
	_ = conn.SetReadDeadline(time.Now().Add(serverPatience))
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil
		}
		if answer := new(dns.Msg); answer.Unpack(buffer[:n]) == nil && answer.Id == m.Id {
			return answer
		}
	}
}

// kept returns an answer as it is kept.
func (r *resolver) kept(answer *dns.Msg, client netip.Addr) *kept {
	k := &kept{answer: answer, begin: time.Now(), scope: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	ttl := uint32(3600)
	for _, rr := range answer.Answer {
		ttl = min(ttl, rr.Header().Ttl)
	}
	if len(answer.Answer) == 0 {
		ttl = 0
		for _, rr := range answer.Ns {
			if soa, ok := rr.(*dns.SOA); ok { // RFC 2308 section 5
				ttl = min(soa.Minttl, soa.Hdr.Ttl)
			}
		}
	}
	if opt := answer.IsEdns0(); opt != nil && r.ecs {
		for _, option := range opt.Option {
			if e, ok := option.(*dns.EDNS0_SUBNET); ok {
				k.scope = netip.PrefixFrom(client, min(int(e.SourceScope), subnetBits)).Masked()
			}
		}
	}
	k.end = k.begin.Add(time.Duration(ttl) * time.Second)
	return k
}
