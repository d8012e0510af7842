package main

// This file stands in for what other branches bring.

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"

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

// serveDNS: server.Run, which serves every socket.
func serveDNS(ctx context.Context, s *dns.Server, sockets dns.Sockets) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range max(len(sockets.UDP), len(sockets.TCP)) {
		file, err := sockets.TCP[i%len(sockets.TCP)].(*net.TCPListener).File()
		if err != nil {
			return err
		}
		tcp, err := net.FileListener(file)
		if err != nil {
			return err
		}
		file.Close()
		group.Go(func() error {
			return s.Run(ctx, dns.Sockets{UDP: sockets.UDP[i : i+1], TCP: []net.Listener{tcp}})
		})
	}
	for _, l := range sockets.TCP {
		l.Close()
	}
	return group.Wait()
}
