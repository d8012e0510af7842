package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/internal/sockets"
)

// bindDNS opens the sockets of plain DNS: TCP and several of UDP for each address. The threads that serve the latter keep a
// processor each while they are busy, so that the runtime must have one more than these for all else.
func bindDNS(pool *sockets.Pool, addrs []netip.AddrPort, workers int) (dns.Sockets, error) {
	var s dns.Sockets
	addrs, err := expand(addrs)
	if err != nil {
		return s, err
	}
	for _, at := range addrs {
		tcp, udp, err := pool.Both(at, workers)
		if err != nil {
			return s, errors.Join(err, closeDNS(s))
		}
		s.TCP, s.UDP = append(s.TCP, tcp), append(s.UDP, udp...)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), len(s.UDP)+1))
	}
	return s, nil
}

// bind opens all sockets of a DNS node.
func (f *dnsFlags) bind(pool *sockets.Pool) (dns.Sockets, error) {
	s, err := bindDNS(pool, f.listen, f.workers)
	if err != nil {
		return s, fmt.Errorf("listen: %w", err)
	}
	err = func() error {
		addrs, err := expand(f.tlsListen)
		if err != nil {
			return fmt.Errorf("tls-listen: %w", err)
		}
		for _, at := range addrs {
			l, err := pool.Stream(at)
			if err != nil {
				return fmt.Errorf("tls-listen: %w", err)
			}
			s.TLS = append(s.TLS, l)
		}
		if addrs, err = expand(f.httpsListen); err != nil {
			return fmt.Errorf("https-listen: %w", err)
		}
		for _, at := range addrs {
			l, quic, err := pool.Both(at, 1)
			if err != nil {
				return fmt.Errorf("https-listen: %w", err)
			}
			s.HTTPS, s.QUIC = append(s.HTTPS, l), append(s.QUIC, quic[0])
			for _, more := range quic[1:] { // of a predecessor
				s.QUIC = append(s.QUIC, more)
			}
		}
		return nil
	}()
	if err != nil {
		return s, errors.Join(err, closeDNS(s))
	}
	return s, nil
}

// closeDNS closes sockets that nobody will serve.
func closeDNS(s dns.Sockets) error {
	var failures []error
	for _, c := range s.UDP {
		failures = append(failures, c.Close())
	}
	for _, l := range slices.Concat(s.TCP, s.TLS, s.HTTPS) {
		failures = append(failures, l.Close())
	}
	for _, c := range s.QUIC {
		failures = append(failures, c.Close())
	}
	return errors.Join(failures...)
}

// expand replaces 0.0.0.0 and [::] by the addresses that this machine has now: an answer must leave from the address that was
// asked, which a socket of one address does by itself.
func expand(addrs []netip.AddrPort) ([]netip.AddrPort, error) {
	var expanded []netip.AddrPort
	for _, at := range addrs {
		if !at.Addr().IsUnspecified() {
			expanded = append(expanded, at)
			continue
		}
		own, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("addresses for %v: %w", at, err)
		}
		for _, a := range own {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().Is4() == at.Addr().Is4() && !prefix.Addr().IsLinkLocalUnicast() {
				expanded = append(expanded, netip.AddrPortFrom(prefix.Addr(), at.Port()))
			}
		}
	}
	slices.SortFunc(expanded, netip.AddrPort.Compare)
	return slices.CompactFunc(expanded, func(a, b netip.AddrPort) bool { return a == b && a.Port() != 0 }), nil
}
