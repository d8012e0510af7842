package probe

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology"
)

// startDNS starts a server of a zone over UDP and TCP, whose answers change may spoil.
func startDNS(t *testing.T, spoil *atomic.Pointer[func(network string, answer *dns.Msg)]) netip.AddrPort {
	t.Helper()
	tcp, udp := sockettest.Both(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		answer.Authoritative = true
		text := "zone.test. 60 IN SOA a.zone.test. b.zone.test. 7 1 1 1 1"
		if q.Question[0].Qtype == dns.TypeA {
			text = "in.zone.test. 20 IN A 192.0.2.1"
		}
		rr, err := dns.NewRR(text)
		if err != nil || q.RecursionDesired || !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			answer.Rcode = dns.RcodeRefused
		} else {
			answer.Answer = []dns.RR{rr}
		}
		if f := spoil.Load(); f != nil {
			(*f)(w.RemoteAddr().Network(), answer)
		}
		_ = w.WriteMsg(answer)
	})
	var running, started sync.WaitGroup
	t.Cleanup(running.Wait) // after they are shut down
	for _, s := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		running.Go(func() { _ = s.ActivateAndServe() })
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	started.Wait()
	return tcp.Addr().(*net.TCPAddr).AddrPort()
}

func TestDNS(t *testing.T) {
	var spoil atomic.Pointer[func(string, *dns.Msg)]
	at := startDNS(t, &spoil)
	reports := map[string]*health.Report{
		"dns:a": {Serves: at.String()}, "dns:b": {}, "dns:c": {Serves: "0.0.0.0:53"}, "dns:d": {Serves: "somewhere"}, "pop:e": {Serves: at.String()},
	}
	snap := &topology.Snapshot{Topology: &topology.Topology{
		Zones: map[string]*topology.Zone{"zone.test": {}, "zones.test": {}}, Services: map[string]*topology.Service{"in.zone.test": {}},
	}}
	targets := DNSTargets(reports, snap)
	if len(targets) != 1 || targets[0].Target != (health.Target{Kind: health.DNS, Name: "a"}) {
		t.Fatalf("got %+v", targets)
	}
	if none := DNSTargets(reports, &topology.Snapshot{Topology: &topology.Topology{}}); none != nil {
		t.Errorf("got %+v without a zone", none)
	}
	p := New(Config{})
	defer p.Close()
	if o := p.Probe(t.Context(), targets[0]); !o.OK || o.Reason != "answers with authority, serial 7" || names(o) != "answer" {
		t.Errorf("got %+v", o)
	}
	soa := func(m *dns.Msg) *dns.SOA {
		if len(m.Answer) > 0 {
			if soa, ok := m.Answer[0].(*dns.SOA); ok {
				return soa
			}
		}
		return new(dns.SOA)
	}
	for _, test := range []struct {
		name  string
		spoil func(network string, m *dns.Msg)
		want  string
		ok    bool
	}{
		{"no authority", func(_ string, m *dns.Msg) { m.Authoritative = false }, "without authority", false},
		{"no records over TCP", func(network string, m *dns.Msg) {
			if network == "tcp" {
				m.Answer = nil
			}
		}, "over TCP: answered NOERROR with 0 records", false},
		{"refused", func(_ string, m *dns.Msg) { m.Rcode = dns.RcodeRefused }, "REFUSED", false},
		{"no PoP by rules", func(_ string, m *dns.Msg) {
			if m.Question[0].Qtype == dns.TypeA {
				m.Rcode, m.Answer = dns.RcodeServerFailure, nil
				m.SetEdns0(1232, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited}}
			}
		}, "serial 7", true},
		{"a failure", func(_ string, m *dns.Msg) {
			if m.Question[0].Qtype == dns.TypeA {
				m.Rcode, m.Answer = dns.RcodeServerFailure, nil
			}
		}, "SERVFAIL", false},
		{"a newer serial", func(_ string, m *dns.Msg) { soa(m).Serial = 9 }, "serial 9", true},
		{"an older one", func(_ string, m *dns.Msg) {}, "serial 7, 2 behind another node's", true},
	} {
		spoil.Store(&test.spoil)
		o := p.Probe(t.Context(), targets[0])
		if o.OK != test.ok || !strings.Contains(o.Reason, test.want) || !o.OK && (o.Code != health.Answered || !strings.Contains(o.Reason, at.String())) {
			t.Errorf("%s: got %+v", test.name, o)
		}
	}
}
