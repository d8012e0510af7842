package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/certfile"
	"github.com/isochrone/isochrone/internal/systemd"
	"github.com/isochrone/isochrone/topology/relay"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// controlFolder is where a control plane keeps what is its own in the state folder, which it may share with others.
const controlFolder = "control"

// control is what "isochrone control" runs.
type control struct {
	flags   *controlFlags
	log     *slog.Logger
	layers  *layers
	node    *node
	sources *sources
	etcd    *clientv3.Client
	parts   *controlParts
	cert    *certfile.File // nil without TLS
}

// runControl runs a control plane until it is told to end, or a part of it fails.
func runControl(command *cobra.Command, f *controlFlags) error {
	unlock, err := stateDir(f.dir).lock(controlFolder, f.name)
	if err != nil {
		return err
	}
	defer unlock()
	c := &control{flags: f, log: newLogger(command, f.verbose), layers: newLayers()}
	l, err := c.listen()
	if err != nil {
		return err
	}
	if err := c.start(command.Context(), l); err != nil {
		return errors.Join(err, l.Close(), c.layers.stop())
	}
	scheme := "http"
	if f.cert != "" {
		scheme = "https"
	}
	fmt.Fprintf(command.OutOrStdout(), "control plane %s serves %s://%v\n", f.name, scheme, l.Addr())
	systemd.Notify("READY=1")
	return c.layers.wait(command.Context())
}

func (c *control) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", c.flags.listen.String())
	if err != nil {
		return nil, listenError(c.flags.listen, "listen", err)
	}
	return l, nil
}

// start starts all parts, from the ground up. It waits for etcd for a moment only: with what was in force last it can answer.
func (c *control) start(ctx context.Context, l net.Listener) (err error) {
	f, dir := c.flags, stateDir(c.flags.dir)
	if c.sources, err = openSources(f.sources, &keptSources{dir: dir.path(controlFolder, f.name, "geo"), log: c.log}, c.log); err != nil {
		return err
	}
	if c.etcd, err = f.etcd.connect(ctx, f.dir); err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	ground := c.layers.add()
	ground.run("etcd", func(ctx context.Context) error { // ends last
		<-ctx.Done()
		return c.etcd.Close()
	})
	c.node = newNode("control", f.name, dir, dir.path(controlFolder, f.name, "last-good.yaml"), c.log, newContact(c.log, "etcd"))
	if c.node.secrets, err = newSecrets(f.secretKey, "control", c.log); err != nil {
		return err
	}
	f.vantage.apply(c.node)
	c.node.onHost = f.listen.Addr().IsLoopback()
	tables := newCompiler(c.sources.live, c.log)
	c.node.decides(c.sources.live)
	c.node.resume(tables.take)
	following := c.layers.add()
	following.run("tables", tables.run)
	connect := func(context.Context) (*upstream, error) {
		up := etcdUpstream(c.etcd, f.etcd.prefix, "control", f.name)
		up.close = func() error { return nil } // it is the ground's
		return up, nil
	}
	following.run("topology", func(ctx context.Context) error { return c.node.follow(ctx, connect, tables.take) })

	above := c.layers.add()
	above.run("overrides", func(ctx context.Context) error { return expireOverrides(ctx, c.sources.live) })
	above.run("geo database", c.sources.watch)
	if f.probe {
		above.run("health", func(ctx context.Context) error {
			return c.node.probeWithKey(ctx, everything, func() {}, func(v health.Verdicts) { c.sources.live.Verdicts(v, time.Now()) })
		})
	}
	c.parts = newControlParts(c.etcd, f.etcd.prefix, store.NodeName("control", f.name), c.node, c.sources, c.log)
	if f.secretKey != "" {
		identities, err := sealed.ReadIdentities(f.secretKey)
		if err != nil {
			return fmt.Errorf("secret-key: %w", err)
		}
		if err := c.parts.issue(&f.issue, identities, c.node); err != nil {
			return err
		}
	}
	c.parts.run(above)
	mounts, err := c.mounts(above)
	if err != nil {
		return err
	}
	served, err := c.secure(l, above)
	if err != nil {
		return err
	}
	registry := newRegistry(c.node)
	c.sources.measure(registry)
	c.parts.measure(registry)
	if c.cert != nil {
		measureExpiry(registry, c.cert.Certificate)
	}
	above.run("API", func(ctx context.Context) error {
		return serveHTTP(ctx, served, c.parts.handler(registry, ctx.Done(), mounts))
	})
	return nil
}

// mounts are the handlers for nodes, who show certificates and no tokens: by which they join, renew, and follow the store.
func (c *control) mounts(on *layer) (map[string]http.Handler, error) {
	if c.flags.caDir == "" {
		return nil, nil
	}
	authority, err := ca.Open(c.flags.caDir)
	if err != nil {
		return nil, fmt.Errorf("ca-dir: %w", err)
	}
	registrar := &controlplane.Registrar{
		Etcd: c.etcd, Root: c.flags.etcd.prefix, CA: authority, URLs: c.flags.urls, Relay: c.flags.relay, Endpoints: c.flags.etcd.endpoints, Now: time.Now,
	}
	c.parts.service.Registrar = registrar
	join := controlplane.JoinHandler(registrar, c.log)
	members := controlplane.NewMembers(c.etcd, c.flags.etcd.prefix, authority, time.Now)
	on.run("members", members.Run)
	hub := newHub(c.etcd, c.flags.etcd.prefix, members.Admit, c.log)
	on.run("relay", hub.Run)
	return map[string]http.Handler{"POST /v1/join": join, "POST /v1/renew": join, relay.Path: hub}, nil
}

// secure puts TLS over a listener, with a certificate that is read again when its file changes.
func (c *control) secure(l net.Listener, on *layer) (net.Listener, error) {
	f := c.flags
	if f.cert == "" {
		return l, nil
	}
	cert, err := certfile.Open(f.cert, f.certKey)
	if err != nil {
		return nil, fmt.Errorf("tls-cert: %w", err)
	}
	c.cert = cert
	on.run("certificate", func(ctx context.Context) error {
		cert.Run(ctx, c.log)
		return ctx.Err()
	})
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: cert.Certificate}
	if f.caDir != "" {
		authority, err := ca.OpenCertificate(ca.Path(f.caDir))
		if err != nil {
			return nil, fmt.Errorf("ca-dir: %w", err)
		}
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, authority.Pool()
	}
	return tls.NewListener(l, config), nil
}
