package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// target says which Isochrone a command works with: by the API of a control plane, or straight at etcd.
type target struct {
	context                 string // name of one in the file of contexts
	dir, api, ca, tokenFile string
	etcd                    etcdFlags
	output                  string
	flags                   *pflag.FlagSet // that say which of these were given
}

// register adds the flags to a command and those below it.
func (t *target) register(command *cobra.Command) {
	flags := command.PersistentFlags()
	t.flags = flags
	flags.StringVar(&t.context, "context", "", "`name` of the context to work in (default: $ISOCHRONE_CONTEXT, or as \"isochrone context use\" said)")
	flags.StringVar(&t.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	flags.StringVar(&t.api, "api", "", "`URL` of a control plane")
	flags.StringVar(&t.tokenFile, "token-file", "", "`file` with the token of --api, of mode 0600 (default: $ISOCHRONE_TOKEN)")
	flags.StringVar(&t.ca, "ca", "", "`file` of the CAs that issue the certificate of --api (PEM; default: those of the system)")
	t.etcd.register(flags)
	flags.StringVarP(&t.output, "output", "o", "table", "`form` of what is printed: table, json or yaml")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("context", completeContexts)
}

// patienceOfCommands bounds a command that does one thing.
const patienceOfCommands = time.Minute

// with calls work with the operations of the target.
func (t *target) with(command *cobra.Command, work func(context.Context, controlplane.Operations) error) error {
	if err := t.checkOutput(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(command.Context(), patienceOfCommands)
	defer cancel()
	ops, done, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	return work(controlplane.WithIdentity(ctx, controlplane.Identity{Name: author(), Role: controlplane.Admin}), ops)
}

// open returns the operations, and what ends them.
func (t *target) open(ctx context.Context) (controlplane.Operations, func(), error) {
	c, err := t.resolve()
	if err != nil {
		return nil, nil, err
	}
	if err := c.up(); err != nil {
		return nil, nil, err
	}
	if c.API != "" {
		return c.client()
	}
	return c.direct(ctx)
}

// resolve finds out which Isochrone is meant: flags come first, then a context that is named, then --dir, then the present context, and
// last an "isochrone up" on this machine.
func (t *target) resolve() (*targetContext, error) {
	given := t.flags.Changed
	switch {
	case t.api != "" && len(t.etcd.endpoints) > 0:
		return nil, errors.New("--api and --etcd: want one of both")
	case t.api != "":
		return &targetContext{API: t.api, TokenFile: t.tokenFile, CA: t.ca, dir: t.dir}, nil
	case len(t.etcd.endpoints) > 0:
		return &targetContext{Etcd: contextEtcdOf(&t.etcd)}, t.etcd.check()
	}
	name := t.context
	if name == "" && !given("dir") {
		name = os.Getenv("ISOCHRONE_CONTEXT")
	}
	contexts, err := readContexts()
	if err != nil {
		return nil, err
	}
	if name == "" && !given("dir") {
		name = contexts.Current
	}
	if name == "" {
		return &targetContext{Dir: t.dir}, nil
	}
	c := contexts.Contexts[name]
	if c == nil {
		return nil, fmt.Errorf("there is no context %q; there are %s", name, orNone(contexts.names()))
	}
	return c, nil
}

// up fills in where an "isochrone up" is.
func (c *targetContext) up() error {
	if c.API != "" || len(c.Etcd.Endpoints) > 0 {
		return nil
	}
	up, err := statedir.ReadUp(c.Dir)
	if err != nil {
		return err
	}
	c.API, c.dir = up.API, c.Dir
	return nil
}

// client returns a client of the control plane.
func (c *targetContext) client() (controlplane.Operations, func(), error) {
	config := controlplane.ClientConfig{URL: c.API, Token: c.token}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("--ca: %w", err)
		}
		config.Roots = x509.NewCertPool()
		if !config.Roots.AppendCertsFromPEM(text) {
			return nil, nil, fmt.Errorf("--ca: %s has no certificate in PEM", c.CA)
		}
	}
	client, err := controlplane.NewClient(config)
	if err != nil {
		return nil, nil, fmt.Errorf("--api: %w", err)
	}
	return client, client.Close, nil
}

// token returns the token of the API: of a file, of the context, of the environment, or of the "isochrone up" that has the API.
func (c *targetContext) token() (string, error) {
	file := c.TokenFile
	switch {
	case file != "":
	case c.Token != "":
		return c.Token, nil
	case os.Getenv("ISOCHRONE_TOKEN") != "":
		return os.Getenv("ISOCHRONE_TOKEN"), nil
	default:
		up, err := statedir.ReadUp(c.dir)
		if err != nil || strings.TrimSuffix(up.API, "/") != strings.TrimSuffix(c.API, "/") {
			return "", fmt.Errorf("%s needs a token: name its file with --token-file, or set ISOCHRONE_TOKEN", c.API)
		}
		file = filepath.Join(c.dir, tokenFile)
	}
	text, err := privatefile.Read(file, maxSecretFile)
	if err != nil {
		return "", fmt.Errorf("the token of the control plane: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// direct works with the store itself. What needs a view reads and compiles it once.
func (c *targetContext) direct(ctx context.Context) (controlplane.Operations, func(), error) {
	flags := c.Etcd.flags()
	if err := flags.check(); err != nil {
		return nil, nil, err
	}
	client, err := flags.connect(ctx, c.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to etcd: %w", err)
	}
	s := store.New(client, flags.prefix)
	service := &controlplane.Service{
		Store: s, Auth: controlplane.NewTokens(client, flags.prefix), Now: time.Now, Snapshot: noSnapshot, View: sync.OnceValue(func() *router.View { return viewOf(ctx, s) }),
		Registrar: &controlplane.Registrar{Etcd: client, Root: flags.prefix, Now: time.Now}, // without a CA: "pop invite" names it
		Alive: func(ctx context.Context) ([]controlplane.NodeStatus, error) {
			nodes, err := s.Nodes(ctx)
			return nodeList(nodes), err
		},
	}
	return service, func() { client.Close() }, nil
}

// viewOf reads what is stored and compiles it with the geo database of the program, or returns nil when that fails or is invalid.
func viewOf(ctx context.Context, s *store.Store) *router.View {
	snap, err := s.Read(ctx)
	if err != nil || len(snap.Faults) > 0 {
		return nil
	}
	sources, err := openSources(sourceFlags{}, nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil || sources.live.Topology(snap, time.Now()) != nil {
		return nil
	}
	return sources.live.View()
}

// noSnapshot is for who does not follow the store.
func noSnapshot() *topology.Snapshot { return nil }
