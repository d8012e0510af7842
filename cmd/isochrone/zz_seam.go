package main

// This file stands in for what other branches bring.

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/isochrone/isochrone/dns"
)

// newDNSKeyCommands: dnskeys.go.
func newDNSKeyCommands() []*cobra.Command { return nil }

// certFile: certfile.File.
type certFile struct{ certificate *tls.Certificate }

// openCertFile: certfile.Open.
func openCertFile(cert, key string) (*certFile, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	return &certFile{&c}, err
}

func (c *certFile) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.certificate, nil
}

func (c *certFile) Run(ctx context.Context, _ *slog.Logger) { <-ctx.Done() }

// dnsProblems: server.Problems().
func dnsProblems(*dns.Server) []string { return nil }

// dnsCollector: server.Collector().
func dnsCollector(*dns.Server) prometheus.Collector { return prometheus.NewRegistry() }

// serveDNS: server.Run, which serves every socket. The present one serves one of each kind, and forgets a question that it has
// read when its context ends.
func serveDNS(ctx context.Context, s *dns.Server, sockets dns.Sockets) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range sockets.UDP {
		stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
		group.Go(func() error {
			defer stop()
			defer c.Close()
			for buffer := make([]byte, 4096); ; {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if err == nil {
					if answer := s.Answer(buffer[:n], from.Addr(), true); answer != nil {
						c.WriteToUDPAddrPort(answer, from)
					}
				} else if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		})
	}
	for _, l := range sockets.TCP {
		unused, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		group.Go(func() error { return s.Run(ctx, dns.Sockets{UDP: []*net.UDPConn{unused}, TCP: []net.Listener{l}}) })
	}
	return group.Wait()
}
