package intakeclient

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Resolver asks one DNS server, as a recursive resolver would for its client.
type Resolver struct {
	Server string       // host:port
	Subnet netip.Prefix // client subnet to send (RFC 7871); the zero value sends none
	Dial   Dial         // connects to the server; nil takes sockets of the system
}

// SystemResolver returns the address and port of the first DNS server of /etc/resolv.conf.
func SystemResolver() (string, error) {
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return "", fmt.Errorf("find the system's DNS server: %w", err)
	}
	if len(config.Servers) == 0 {
		return "", errors.New("find the system's DNS server: /etc/resolv.conf names none")
	}
	return net.JoinHostPort(config.Servers[0], config.Port), nil
}

// Endpoint is where a service can be reached.
type Endpoint struct {
	Target string // host name that the address belongs to, without a trailing dot
	Addr   netip.AddrPort
	Speaks Protocols // as DNS says; 0 if it says nothing about that
}

// Protocols is a set of versions of HTTP.
type Protocols uint8

// The versions that a client of the intake speaks.
const (
	HTTP3 Protocols = 1 << iota
	HTTP2
)

// speaks reports whether a version is worth a try.
func (e Endpoint) speaks(p Protocols) bool { return e.Speaks == 0 || e.Speaks&p != 0 }

// ErrNoAddress says that a name has no address, though the server answered.
var ErrNoAddress = errors.New("no address")

// Bounds of what DNS says.
const (
	maxAliases  = 8           // that are followed
	shortestTTL = time.Second // as which an answer with a shorter one is taken: else each post would ask
	longestTTL  = time.Hour   // likewise with a longer one
)

// Resolve returns where a service can be reached, best first: by its HTTPS records (RFC 9460), else by A and AAAA with port
// 443.
func (r *Resolver) Resolve(ctx context.Context, service string) ([]Endpoint, error) {
	endpoints, _, err := r.Lookup(ctx, service)
	return endpoints, err
}

// Lookup is Resolve, and tells for how long that is good: the least TTL of the records that were used, a second at least, an hour at most.
func (r *Resolver) Lookup(ctx context.Context, service string) ([]Endpoint, time.Duration, error) {
	l := &resolution{resolver: r, ttl: longestTTL}
	endpoints, err := l.resolve(ctx, service)
	return endpoints, max(l.ttl, shortestTTL), err
}

// resolution is one Lookup.
type resolution struct {
	resolver *Resolver
	ttl      time.Duration
}

// uses notes that a record counts.
func (l *resolution) uses(h *dns.RR_Header) { l.ttl = min(l.ttl, time.Duration(h.Ttl)*time.Second) }

// resolve follows records in AliasMode from one name to the next (RFC 9460 section 3).
func (l *resolution) resolve(ctx context.Context, service string) ([]Endpoint, error) {
	name := service
	for range maxAliases + 1 {
		answer, err := l.resolver.ask(ctx, name, dns.TypeHTTPS)
		if err != nil {
			return nil, err
		}
		if alias := l.alias(answer); alias == "." { // RFC 9460 section 2.5.1
			return nil, fmt.Errorf("resolve %s: %s says that it is not available: %w", service, name, ErrNoAddress)
		} else if alias != "" {
			name = strings.TrimSuffix(alias, ".")
			continue
		}
		endpoints, err := l.fromHTTPS(ctx, answer)
		if err != nil || len(endpoints) > 0 {
			return endpoints, err
		}
		addrs, err := l.addresses(ctx, name)
		for _, addr := range addrs {
			endpoints = append(endpoints, Endpoint{Target: name, Addr: netip.AddrPortFrom(addr, 443)})
		}
		if err == nil && len(endpoints) == 0 {
			err = fmt.Errorf("resolve %s: %w", name, ErrNoAddress)
		}
		return endpoints, err
	}
	return nil, fmt.Errorf("resolve %s: more than %d aliases, the last to %s", service, maxAliases, name)
}

// alias returns the target of a record in AliasMode, of several any (RFC 9460 section 2.4.2), or "". Those in ServiceMode beside it do not count
// (section 2.4.1).
func (l *resolution) alias(answer *dns.Msg) string {
	var targets []string
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			l.uses(&rr.Hdr)
		case *dns.HTTPS:
			l.uses(&rr.Hdr)
			if rr.Priority == 0 {
				targets = append(targets, rr.Target)
			}
		}
	}
	if len(targets) == 0 {
		return ""
	}
	return targets[mathrand.IntN(len(targets))]
}

// fromHTTPS reads the records in ServiceMode that offer HTTP/3 or HTTP/2, by priority.
func (l *resolution) fromHTTPS(ctx context.Context, answer *dns.Msg) ([]Endpoint, error) {
	var records []*dns.HTTPS
	for _, rr := range answer.Answer {
		if https, ok := rr.(*dns.HTTPS); ok {
			records = append(records, https)
		}
	}
	slices.SortStableFunc(records, func(a, b *dns.HTTPS) int { return int(a.Priority) - int(b.Priority) })
	var endpoints []Endpoint
	for _, record := range records {
		speaks, ok := usable(record)
		if !ok {
			continue
		}
		target, port := strings.TrimSuffix(record.Target, "."), uint16(443)
		if target == "" {
			target = strings.TrimSuffix(record.Hdr.Name, ".")
		}
		var addrs []netip.Addr
		for _, value := range record.Value {
			switch v := value.(type) {
			case *dns.SVCBPort:
				port = v.Port
			case *dns.SVCBIPv4Hint:
				for _, ip := range v.Hint {
					addrs = appendIP(addrs, ip)
				}
			case *dns.SVCBIPv6Hint:
				for _, ip := range v.Hint {
					addrs = appendIP(addrs, ip)
				}
			}
		}
		if len(addrs) == 0 {
			var err error
			if addrs, err = l.addresses(ctx, target); err != nil {
				return nil, err
			}
		}
		for _, addr := range addrs {
			endpoints = append(endpoints, Endpoint{target, netip.AddrPortFrom(addr, port), speaks})
		}
	}
	return endpoints, nil
}

// usable reports whether a record offers HTTP/3 or HTTP/2, and which of them, and wants nothing that is not understood here (RFC 9460
// sections 7.1 and 8). One without alpn says nothing about versions, and all are tried.
func usable(record *dns.HTTPS) (speaks Protocols, ok bool) {
	ok = true
	for _, value := range record.Value {
		switch v := value.(type) {
		case *dns.SVCBAlpn:
			if slices.Contains(v.Alpn, "h3") {
				speaks |= HTTP3
			}
			if slices.Contains(v.Alpn, "h2") {
				speaks |= HTTP2
			}
			ok = ok && speaks != 0
		case *dns.SVCBMandatory:
			for _, key := range v.Code {
				switch key {
				case dns.SVCB_ALPN, dns.SVCB_NO_DEFAULT_ALPN, dns.SVCB_PORT, dns.SVCB_IPV4HINT, dns.SVCB_IPV6HINT:
				default:
					return 0, false
				}
			}
		}
	}
	return speaks, ok
}

// addresses returns a name's IPv4 addresses, then its IPv6 ones.
func (l *resolution) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := l.resolver.ask(ctx, name, qtype)
		if err != nil {
			return nil, err
		}
		for _, rr := range answer.Answer {
			l.uses(rr.Header())
			switch rr := rr.(type) {
			case *dns.A:
				addrs = appendIP(addrs, rr.A)
			case *dns.AAAA:
				addrs = appendIP(addrs, rr.AAAA)
			}
		}
	}
	return addrs, nil
}

func appendIP(addrs []netip.Addr, ip []byte) []netip.Addr {
	if addr, ok := netip.AddrFromSlice(ip); ok {
		addrs = append(addrs, addr.Unmap())
	}
	return addrs
}

// ask asks over UDP, three times at most, and over TCP when the answer was truncated.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	question.SetEdns0(1232, false)
	if r.Subnet.IsValid() {
		p := r.Subnet.Masked()
		e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
		if p.Addr().Is6() {
			e.Family = 2
		}
		question.IsEdns0().Option = append(question.IsEdns0().Option, e)
	}
	answer, err := r.exchange(ctx, "udp", question)
	for range 2 {
		if err != nil && ctx.Err() == nil {
			answer, err = r.exchange(ctx, "udp", question)
		}
	}
	if err == nil && answer.Truncated {
		answer, err = r.exchange(ctx, "tcp", question)
	}
	what := name + " " + dns.TypeToString[qtype]
	switch {
	case err != nil:
		return nil, fmt.Errorf("resolve %s: %w", what, err)
	case answer.Rcode != dns.RcodeSuccess:
		return nil, fmt.Errorf("resolve %s: the server at %s answered %s%s", what, r.Server, dns.RcodeToString[answer.Rcode], extended(answer))
	}
	return answer, nil
}

func (r *Resolver) exchange(ctx context.Context, network string, question *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: time.Second}
	if r.Dial == nil {
		answer, _, err := client.ExchangeContext(ctx, question, r.Server)
		return answer, err
	}
	conn, err := r.Dial(ctx, network, r.Server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, _, err := client.ExchangeWithConnContext(ctx, question, &dns.Conn{Conn: conn})
	return answer, err
}

// extended tells the Extended DNS Error (RFC 8914) of an answer.
func extended(answer *dns.Msg) string {
	opt := answer.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, option := range opt.Option {
		if e, ok := option.(*dns.EDNS0_EDE); ok {
			return ": " + strings.TrimSuffix(dns.ExtendedErrorCodeToString[e.InfoCode]+", "+e.ExtraText, ", ")
		}
	}
	return ""
}
