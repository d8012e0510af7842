package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// seen is what a client of a subnet is answered.
type seen struct {
	addrs  []string
	scope  netip.Prefix // for whom the answer is
	secure bool         // the server has validated it
}

// askAs asks a server for a service's addresses, for a client subnet.
func askAs(at, service string, subnet netip.Prefix) (seen, error) {
	question := new(mdns.Msg).SetQuestion(service+".", mdns.TypeA)
	ecs := &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(subnet.Bits())}
	ecs.Address = subnet.Addr().AsSlice()
	if subnet.Addr().Is6() {
		ecs.Family = 2
	}
	question.SetEdns0(1232, true)
	question.IsEdns0().Option = append(question.IsEdns0().Option, ecs)
	client := mdns.Client{Timeout: 15 * time.Second}
	answer, _, err := client.Exchange(question, at)
	if err != nil {
		return seen{}, err
	}
	s := seen{secure: answer.AuthenticatedData}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*mdns.A); ok {
			s.addrs = append(s.addrs, a.A.String())
		}
	}
	slices.Sort(s.addrs)
	if opt := answer.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if back, ok := option.(*mdns.EDNS0_SUBNET); ok {
				s.scope = netip.PrefixFrom(subnet.Addr(), int(back.SourceScope)).Masked()
			}
		}
	}
	if answer.Rcode != mdns.RcodeSuccess || len(s.addrs) == 0 {
		err = fmt.Errorf("%v: the answer is\n%v", subnet, answer)
	}
	return s, err
}

// questions tells how many questions have reached the DNS node.
func (d *dnsProcess) questions(t *testing.T) (total int) {
	t.Helper()
	_, body, err := d.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^isochrone_dns_questions_total\{.*\} (\S+)$`).FindAllStringSubmatch(body, -1) {
		n, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		total += int(n)
	}
	return total
}

// startECS starts a resolver that passes client subnets on, those that it is told of included, and keeps answers by their scopes.
func startECS(t *testing.T, d *signedDNS, modules, anchors string) *unbound {
	t.Helper()
	return startUnbound(t, d.DNS, anchors, `module-config: "`+modules+`"`,
		"send-client-subnet: 127.0.0.1", "client-subnet-always-forward: yes",
		"max-client-subnet-ipv4: 24", "max-client-subnet-ipv6: 56", "max-ecs-tree-size-ipv4: 100000", "max-ecs-tree-size-ipv6: 100000",
		"prefetch: no", "cache-min-ttl: 3600") // so that nothing is forgotten during a test
}

// subnets are those of clients all over the world, of those that have a place and of those that have none.
func subnets(n int) []netip.Prefix {
	random := rand.New(rand.NewPCG(7871, 7871))
	var all []netip.Prefix
	for len(all) < n {
		at := netip.AddrFrom4([4]byte{byte(1 + random.IntN(222)), byte(random.IntN(256)), byte(random.IntN(256)), 0})
		bits := 24
		switch random.IntN(4) {
		case 0: // of which the resolver tells less
			bits = 12 + random.IntN(12)
		case 1: // next to one before
			if len(all) > 0 && all[len(all)-1].Addr().Is4() {
				next := all[len(all)-1].Addr().As4()
				next[2]++
				at = netip.AddrFrom4(next)
			}
		case 2:
			at, bits = netip.AddrFrom16([16]byte{0x2a, byte(random.IntN(16)), byte(random.IntN(256)), byte(random.IntN(256))}), 48
		}
		all = append(all, netip.PrefixFrom(at, bits).Masked())
	}
	return all
}

// TestResolverWithSubnets puts a caching resolver that knows client subnets (RFC 7871) between clients and a DNS node.
func TestResolverWithSubnets(t *testing.T) {
	t.Parallel()
	need(t, "unbound")
	const service = "intake.isochrone.test"
	world := startUp(t, "")
	s := startSigned(t, world)
	s.isReady(t, 200, `"in force"`)
	for place, pop := range map[string]string{"singapore": "sin1", "frankfurt": "fra1", "tokyo": "nrt1"} {
		s.leads(t, place, pop)
	}
	for name, modules := range map[string]string{"iterator": "subnetcache iterator", "validator": "subnetcache validator iterator"} {
		t.Run(name, func(t *testing.T) {
			resolver := startECS(t, s, modules, s.keys(world, "ds isochrone.test"))
			for place, subnet := range sendPlaces {
				client := netip.MustParsePrefix(subnet)
				got, err := askAs(resolver.at, service, client)
				if err != nil {
					t.Fatal(err)
				}
				told := decode[router.Trace](t, world.run(t, "explain", service, "--subnet", subnet, "-o", "json"))
				if pop := world.popAt(got.addrs); !slices.Equal(told.Answer, []string{pop}) {
					t.Errorf("%s: the resolver says %v, which is %q, and explain %v", place, got.addrs, pop, told.Answer)
				}
			}
			shares(t, s, resolver, service)
			remembers(t, s, resolver, service, strings.Contains(modules, "validator"))
		})
	}
}

// popAt names the PoP that has an answer's addresses, or nothing.
func (r *running) popAt(addrs []string) string {
	for name, at := range r.PoPs {
		if len(addrs) == 1 && netip.MustParseAddrPort(at).Addr().String() == addrs[0] {
			return name
		}
	}
	return ""
}

// shares asks for clients inside the scope of an answer that the resolver has: no question reaches the DNS node. Next to it, one does.
func shares(t *testing.T, s *signedDNS, resolver *unbound, service string) {
	t.Helper()
	tried := 0
	for _, client := range subnets(200) {
		direct, err := askAs(s.DNS, service, client)
		if err != nil {
			t.Fatal(err)
		}
		if !client.Addr().Is4() || client.Bits() != 24 || direct.scope.Bits() >= 23 || direct.scope.Bits() < 9 {
			continue
		}
		if tried++; tried > 10 {
			break
		}
		if _, err := askAs(resolver.at, service, client); err != nil {
			t.Fatal(err)
		}
		before := s.questions(t)
		inside := []netip.Prefix{netip.PrefixFrom(direct.scope.Addr(), 24), netip.PrefixFrom(lastOf(direct.scope), 24).Masked()}
		for _, other := range inside {
			if got, err := askAs(resolver.at, service, other); err != nil || !slices.Equal(got.addrs, direct.addrs) {
				t.Errorf("%v, like %v in %v: got %v, %v, want %v", other, client, direct.scope, got.addrs, err, direct.addrs)
			}
		}
		if asked := s.questions(t) - before; asked != 0 {
			t.Errorf("%v, like %v in %v: %d questions were asked", inside, client, direct.scope, asked)
		}
		beyond := netip.PrefixFrom(lastOf(direct.scope).Next(), 24)
		if got, err := askAs(s.DNS, service, beyond); err != nil || got.scope.Contains(client.Addr()) {
			t.Errorf("%v next to %v has the scope %v, %v", beyond, direct.scope, got.scope, err)
		}
	}
	if tried < 5 {
		t.Errorf("only %d scopes were tried", tried)
	}
}

// lastOf returns the last address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// remembers asks for many clients at the same time, and in another order again: everybody gets what the DNS node itself says, and the
// second time the resolver knows it all.
func remembers(t *testing.T, s *signedDNS, resolver *unbound, service string, secure bool) {
	t.Helper()
	clients := subnets(400)
	want := map[netip.Prefix]seen{}
	for _, client := range clients {
		direct, err := askAs(s.DNS, service, client)
		if err != nil {
			t.Fatal(err)
		}
		want[client] = direct
	}
	pops := map[string]int{}
	for _, direct := range want {
		pops[fmt.Sprint(direct.addrs)]++
	}
	if len(pops) < 4 {
		t.Errorf("the clients are sent to too few PoPs: %v", pops)
	}
	ask := func(clients []netip.Prefix) {
		var asking sync.WaitGroup
		var mu sync.Mutex
		var faults []error
		for i := range 8 {
			asking.Go(func() {
				for n := i; n < len(clients); n += 8 {
					got, err := askAs(resolver.at, service, clients[n])
					direct := want[clients[n]]
					if err == nil && (!slices.Equal(got.addrs, direct.addrs) || got.secure != secure) {
						err = fmt.Errorf("%v: got %+v, want %+v", clients[n], got, direct)
					}
					if err != nil {
						mu.Lock()
						faults = append(faults, err)
						mu.Unlock()
					}
				}
			})
		}
		asking.Wait()
		if len(faults) > 10 {
			t.Errorf("%d faults, such as", len(faults))
			faults = faults[:10]
		}
		if err := errors.Join(faults...); err != nil {
			t.Error(err)
		}
	}
	before := s.questions(t)
	ask(clients)
	first := s.questions(t)
	again := slices.Clone(clients)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
	ask(again)
	t.Logf("%d clients: %d questions, then %d, to %v", len(clients), first-before, s.questions(t)-first, pops)
	if asked := s.questions(t) - first; asked > 0 {
		t.Errorf("the second time %d questions were asked, the first time %d", asked, first-before)
	}
}
