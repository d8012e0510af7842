package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/dataplane/certs/rotation"
)

// certFlags say which certificates PoPs show, besides those of ACME.
type certFlags struct {
	certs, keys []string
	dir         string
}

func (f *certFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.certs, "cert", nil, "certificate `file` of services (PEM, with its chain), read again when it changes (repeatable, each with --cert-key)")
	flags.StringSliceVar(&f.keys, "cert-key", nil, "private key `file` of --cert (PEM), of mode 0600 or 0640 (repeatable, in the same order)")
	flags.StringVar(&f.dir, "certs", "", "`folder` with certificates NAME.pem and keys NAME.key, which may come and go")
}

// pairs returns the pairs of files that are named one by one.
func (f *certFlags) pairs() (pairs []certs.Pair, err error) {
	if len(f.certs) != len(f.keys) {
		return nil, fmt.Errorf("cert and cert-key: %d certificates and %d keys: want a key for each, in the same order", len(f.certs), len(f.keys))
	}
	for i := range f.certs {
		pairs = append(pairs, certs.Pair{Cert: f.certs[i], Key: f.keys[i]})
	}
	return pairs, nil
}

// openCerts opens the node's source of certificates and keys of session tickets, and has it follow its files and the sealed secrets. SIGHUP
// has files read at once.
func (n *node) openCerts(f *certFlags, on *layer) error {
	pairs, err := f.pairs()
	if err != nil {
		return err
	}
	n.certs, err = certs.Open(certs.Config{
		Pairs: pairs, Dir: f.dir, Own: n.certificate, Log: n.log,
		First: func() string {
			if services := n.Snapshot().Topology.Services; len(services) > 0 {
				return slices.Min(slices.Collect(maps.Keys(services)))
			}
			return ""
		},
		IsService: func(name string) bool { return n.Snapshot().Topology.Services[name] != nil },
	})
	if err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	n.secrets.changed = n.takeIssued
	n.takeIssued()
	hangup := make(chan os.Signal, 1)
	if n.kind == "pop" || len(pairs) > 0 || f.dir != "" { // "up" without files ends with its terminal
		signal.Notify(hangup, syscall.SIGHUP)
	}
	on.run("certificates", func(ctx context.Context) error {
		defer signal.Stop(hangup)
		done := make(chan error, 1)
		go func() { done <- n.certs.Run(ctx) }()
		for {
			select {
			case <-hangup:
				n.certs.Reload()
			case err := <-done:
				return err
			}
		}
	})
	return nil
}

// takeIssued gives the source what the leader has sealed for PoPs.
func (n *node) takeIssued() {
	issued, values := map[string][]byte{}, n.secrets.now.Load().values
	for name, value := range values {
		if service, ok := strings.CutPrefix(name, acme.Prefix); ok {
			issued[service] = value
		}
	}
	n.certs.Issued(issued)
	n.certs.Tickets(values[rotation.Secret])
}

// certsCheck tells of the certificates that do not come from the node's own CA.
func (n *node) certsCheck() check {
	list := n.certs.List()
	if len(list) == 0 {
		return check{Name: "certificates", OK: true, Value: "of this node's own CA only", Only: shown}
	}
	first := slices.MinFunc(list, func(a, b certs.Listed) int { return a.NotAfter.Compare(b.NotAfter) })
	return check{
		Name: "certificates", OK: time.Now().Before(first.NotAfter), Only: shown,
		Value: fmt.Sprintf("%d; the first expires on %s: that of %s", len(list), first.NotAfter.UTC().Format(time.RFC3339), strings.Join(first.Names, ", ")),
	}
}
