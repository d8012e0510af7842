package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// listeners are the two sockets of one address and port.
type listeners struct {
	udp *net.UDPConn
	tcp net.Listener
}

// addr is what both are bound to.
func (l listeners) addr() netip.AddrPort { return l.tcp.Addr().(*net.TCPAddr).AddrPort() }

func (l listeners) close() {
	l.udp.Close()
	l.tcp.Close()
}

// listen binds UDP and TCP of one address and port; port 0 takes one that is free for both. An error names the flag by
// which another address can be chosen.
func listen(addr netip.AddrPort, flag string) (listeners, error) {
	var lastErr error
	for range 20 { // a port that is free for TCP may be taken for UDP
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			return listeners{}, listenError(addr, flag, err)
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
		if err == nil {
			return listeners{udp, tcp}, nil
		}
		tcp.Close()
		if lastErr = err; addr.Port() != 0 {
			break
		}
	}
	return listeners{}, listenError(addr, flag, lastErr)
}

// listenAll binds one port on several addresses; port 0 takes one that is free on all of them.
func listenAll(addrs []netip.Addr, port uint16, flag string) ([]listeners, error) {
	var lastErr error
	for range 20 {
		bound, chosen := make([]listeners, 0, len(addrs)), port
		for _, addr := range addrs {
			l, err := listen(netip.AddrPortFrom(addr, chosen), flag)
			if lastErr = err; err != nil {
				break
			}
			bound, chosen = append(bound, l), l.addr().Port()
		}
		if lastErr == nil {
			return bound, nil
		}
		for _, l := range bound {
			l.close()
		}
		if port != 0 {
			break
		}
	}
	return nil, lastErr
}

func listenError(addr netip.AddrPort, flag string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%v is taken by another program: choose another with %s", addr, flag)
	}
	return fmt.Errorf("%s: %w", flag, err)
}
