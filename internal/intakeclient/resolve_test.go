package intakeclient

import (
	gocmp "cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// serveDNS answers from records in zone file format. Over UDP it truncates answers about names that begin with "big".
func serveDNS(t *testing.T, records ...string) string {
	t.Helper()
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		question := q.Question[0]
		_, overUDP := w.RemoteAddr().(*net.UDPAddr)
		switch {
		case strings.HasPrefix(question.Name, "broken"):
			answer.SetRcode(q, dns.RcodeServerFailure)
			answer.SetEdns0(1232, false)
			answer.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNotReady, ExtraText: "no topology yet"}}
		case strings.HasPrefix(question.Name, "none"):
			answer.SetRcode(q, dns.RcodeNameError)
		case strings.HasPrefix(question.Name, "big") && overUDP:
			answer.Truncated = true
		default:
			for _, rr := range all {
				if rr.Header().Name == question.Name && rr.Header().Rrtype == question.Qtype {
					answer.Answer = append(answer.Answer, rr)
				}
			}
		}
		if opt := q.IsEdns0(); strings.HasPrefix(question.Name, "subnet") && question.Qtype == dns.TypeA && len(opt.Option) == 1 {
			answer.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: opt.Option[0].(*dns.EDNS0_SUBNET).Address,
			}}
		}
		_ = w.WriteMsg(answer)
	})
	tcp, udp := sockettest.Both(t)
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		done, ready := make(chan error, 1), make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		go func() { done <- server.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			server.Shutdown()
			<-done
		})
	}
	return tcp.Addr().String()
}

func TestResolve(t *testing.T) {
	server := serveDNS(t,
		`svc.test. 60 IN HTTPS 2 fra1.svc.test. alpn=h3,h2 port=8443 ipv4hint=192.0.2.2`,
		`svc.test. 60 IN HTTPS 1 sin1.svc.test. alpn=h3,h2 port=8444`,
		`sin1.svc.test. 60 IN A 192.0.2.1`,
		`sin1.svc.test. 60 IN AAAA 2001:db8::1`,
		`own.test. 60 IN HTTPS 1 . alpn=h3 ipv4hint=192.0.2.3 ipv6hint=2001:db8::3`,
		`old.test. 60 IN HTTPS 1 . alpn=http/1.1 ipv4hint=192.0.2.7`,
		`old.test. 60 IN HTTPS 2 . alpn=h2 ipv4hint=192.0.2.8`,
		`new.test. 60 IN HTTPS 1 . mandatory=key667 alpn=h3 ipv4hint=192.0.2.7 key667=x`,
		`new.test. 60 IN HTTPS 2 . mandatory=alpn alpn=h3 ipv4hint=192.0.2.8`,
		`alias.test. 300 IN HTTPS 0 alias2.test.`,
		`alias.test. 300 IN HTTPS 1 . alpn=h3 ipv4hint=192.0.2.7`, // does not count beside an alias
		`alias2.test. 40 IN HTTPS 0 own.test.`,
		`toplain.test. 300 IN HTTPS 0 plain.test.`,
		`loop.test. 60 IN HTTPS 0 loop.test.`,
		`off.test. 60 IN HTTPS 0 .`,
		`soon.test. 0 IN A 192.0.2.4`,
		`late.test. 999999 IN A 192.0.2.4`,
		`only3.test. 60 IN HTTPS 1 . alpn=h3 no-default-alpn ipv4hint=192.0.2.9`,
		`silent.test. 60 IN HTTPS 1 . ipv4hint=192.0.2.9`,
		`plain.test. 30 IN A 192.0.2.4`,
		`big.test. 60 IN A 192.0.2.5`,
		`big.test. 60 IN A 192.0.2.6`,
	)
	endpoint := func(target, addr string, speaks ...Protocols) Endpoint {
		e := Endpoint{Target: target, Addr: netip.MustParseAddrPort(addr)}
		for _, p := range speaks {
			e.Speaks |= p
		}
		return e
	}
	for _, test := range []struct {
		service string
		want    []Endpoint
		ttl     time.Duration // default a minute
		err     string
	}{
		{service: "svc.test", want: []Endpoint{
			endpoint("sin1.svc.test", "192.0.2.1:8444", HTTP3, HTTP2), endpoint("sin1.svc.test", "[2001:db8::1]:8444", HTTP3, HTTP2), endpoint("fra1.svc.test", "192.0.2.2:8443", HTTP3, HTTP2),
		}},
		{service: "own.test", want: []Endpoint{endpoint("own.test", "192.0.2.3:443", HTTP3), endpoint("own.test", "[2001:db8::3]:443", HTTP3)}},
		{service: "old.test", want: []Endpoint{endpoint("old.test", "192.0.2.8:443", HTTP2)}},
		{service: "new.test", want: []Endpoint{endpoint("new.test", "192.0.2.8:443", HTTP3)}},
		{service: "plain.test", want: []Endpoint{endpoint("plain.test", "192.0.2.4:443")}, ttl: 30 * time.Second},
		{service: "alias.test", want: []Endpoint{endpoint("own.test", "192.0.2.3:443", HTTP3), endpoint("own.test", "[2001:db8::3]:443", HTTP3)}, ttl: 40 * time.Second},
		{service: "toplain.test", want: []Endpoint{endpoint("plain.test", "192.0.2.4:443")}, ttl: 30 * time.Second},
		{service: "soon.test", want: []Endpoint{endpoint("soon.test", "192.0.2.4:443")}, ttl: time.Second},
		{service: "late.test", want: []Endpoint{endpoint("late.test", "192.0.2.4:443")}, ttl: time.Hour},
		{service: "only3.test", want: []Endpoint{endpoint("only3.test", "192.0.2.9:443", HTTP3)}},
		{service: "silent.test", want: []Endpoint{endpoint("silent.test", "192.0.2.9:443")}},
		{service: "loop.test", err: "more than 8 aliases"},
		{service: "off.test", err: "not available"},
		{service: "big.test", want: []Endpoint{endpoint("big.test", "192.0.2.5:443"), endpoint("big.test", "192.0.2.6:443")}},
		{service: "subnet.test", want: []Endpoint{endpoint("subnet.test", "203.0.113.0:443")}, ttl: time.Second},
		{service: "none.test", err: "NXDOMAIN"},
		{service: "broken.test", err: "SERVFAIL: Not Ready, no topology yet"},
		{service: "empty.test", err: ErrNoAddress.Error()},
	} {
		t.Run(test.service, func(t *testing.T) {
			r := &Resolver{Server: server, Subnet: netip.MustParsePrefix("203.0.113.77/24")}
			got, ttl, err := r.Lookup(t.Context(), test.service)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got error %v, want %q", err, test.err)
			}
			if want := gocmp.Or(test.ttl, time.Minute); err == nil && ttl != want {
				t.Errorf("it is good for %v, want %v", ttl, want)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestResolveWithoutServer(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	_, err = (&Resolver{Server: silent.LocalAddr().String()}).Resolve(t.Context(), "svc.test")
	if err == nil || errors.Is(err, ErrNoAddress) || !strings.Contains(err.Error(), "resolve svc.test HTTPS") {
		t.Errorf("got %v", err)
	}
	if got := fmt.Sprint(err); strings.Count(got, "\n") > 0 {
		t.Errorf("got several lines: %s", got)
	}
}
