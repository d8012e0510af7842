package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/collector"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/internal/systemd"
)

// singleFlags are those of a PoP or a cluster as a process of its own.
type singleFlags struct {
	config    string
	dir       string
	follow    followFlags
	secretKey string
	certs     certFlags // of a PoP
	listen    []string
	http      netip.AddrPort // of a PoP
	seeing    seeingFlags    // likewise
	verbose   bool

	transports   transportFlags // of a PoP
	bgpPasswords string         // likewise
	vantage      vantageFlags   // likewise
}

func (f *singleFlags) register(command *cobra.Command, pop bool) {
	flags := command.Flags()
	flags.StringVar(&f.config, "config", "", "YAML `file` with values of these flags; the command line wins over it")
	flags.StringVar(&f.dir, "dir", statedir.Default(), "state `folder`, shared with \"isochrone up\" on one machine")
	if pop {
		f.follow.register(flags)
		registerSecretKey(flags, &f.secretKey)
		f.certs.register(flags)
		f.registerHTTP(flags)
		f.transports.register(flags)
		registerBGPPasswords(flags, &f.bgpPasswords)
		f.vantage.register(flags, true, "the first address of its own, port 8054")
		f.seeing.register(flags)
	} else {
		f.follow.etcd.register(flags)
	}
	flags.StringSliceVar(&f.listen, "listen", nil, "`address` and port (default: as the topology says)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more to the terminal")
}

// How long a PoP or cluster waits for the topology as it is, when it has one of before and when it has none.
const (
	freshWait = 2 * time.Second
	firstWait = 10 * time.Second
)

// start returns a node whose topology is followed by a layer of its own. With a topology on disk it starts without etcd.
func (f *singleFlags) start(ctx context.Context, command *cobra.Command, kind, name, lastGood string, l *layers) (*node, error) {
	if err := errors.Join(f.follow.check(), f.vantage.check(), f.follow.mismatch(f.dir, kind, name)); err != nil {
		return nil, err
	}
	ca, err := devca.Load(f.dir)
	if err != nil {
		return nil, err
	}
	log := newLogger(command, f.verbose)
	n := newNode(kind, name, stateDir(f.dir), filepath.Join(f.dir, lastGood), log, newContact(log, f.follow.with(f.dir)))
	n.ca = ca
	if kind == "pop" {
		n.announces = newAnnouncements(f.follow.knownAs(f.dir, kind, name), n.looks.changed)
	}
	if n.secrets, err = newSecrets(f.secretKey, kind, log); err != nil {
		return nil, err
	}
	connect := func(ctx context.Context) (*upstream, error) { return f.follow.connect(ctx, f.dir, kind, name) }
	wait := firstWait
	if n.resume(nil); n.Snapshot() != nil {
		wait = freshWait
	}
	l.add().run("topology", func(ctx context.Context) error { return n.follow(ctx, connect, nil) })
	select {
	case <-n.followed:
	case <-time.After(wait):
		if n.Snapshot() == nil {
			return nil, fmt.Errorf("there is no topology: %v", n.contact)
		}
	case err := <-l.failed:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return n, nil
}

// wait returns when ctx ends or a part fails, after all has ended.
func (l *layers) wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-l.failed:
	}
	return errors.Join(err, l.stop())
}

func newPoPCommand() *cobra.Command {
	var flags singleFlags
	command := &cobra.Command{
		Use:   "pop NAME",
		Short: "Run one PoP of the topology",
		Long: `Runs the dataplane of one PoP of the topology, as a process of its own. On the machine of
"isochrone up" (started with --without NAME) it finds etcd, the CA and the spool in --dir; far from
etcd it follows a control plane that relays it (--relay). With the last good topology in --dir it
starts and goes on without either.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := flags.read(command); err != nil {
				return err
			}
			return runPoPProcess(command, args[0], &flags)
		},
	}
	flags.register(command, true)
	return command
}

// runPoPProcess runs a PoP until the process is told to end, or a successor has taken over.
func runPoPProcess(command *cobra.Command, name string, f *singleFlags) error {
	if os.Getenv("GOMAXPROCS") == "" { // a thread that waits for the disk keeps its processor for milliseconds when nobody else asks for it
		runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	}
	pool, err := sockets.Inherit()
	if err != nil {
		return err
	}
	defer pool.Close()
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2) // from now on it does not end the process
	defer signal.Stop(upgrade)
	process, err := newPoPProcess(name, pool, f.transports, newLogger(command, f.verbose).With("pop", name))
	if err != nil {
		return err
	}
	l := newLayers()
	if err := startPoP(command.Context(), command, process, f, l); err != nil {
		pool.Close()
		return errors.Join(err, l.stop())
	}
	return process.run(command.Context(), upgrade, l)
}

func startPoP(ctx context.Context, command *cobra.Command, process *popProcess, f *singleFlags, l *layers) error {
	name := process.name
	n, err := f.start(ctx, command, "pop", name, filepath.Join("pops", name, "last-good.yaml"), l)
	if err != nil {
		return err
	}
	p := n.Snapshot().Topology.PoPs[name]
	if p == nil {
		return fmt.Errorf("the topology has no PoP %s", name)
	}
	at := func(list []netip.Addr) (all []netip.AddrPort) {
		for _, a := range list {
			all = append(all, netip.AddrPortFrom(a, p.Port))
		}
		return all
	}
	addrs, err := f.addresses(func() []netip.AddrPort { return at(p.Addresses) })
	if err != nil {
		return err
	}
	l.add().run("garbage collector", collector.Run)
	f.vantage.apply(n, addrs...)
	l.add().run("health", n.checkHealthOfPoP)
	if err := f.seeing.start(ctx, n, l.add()); err != nil {
		return err
	}
	if err := n.openCerts(&f.certs, l.add()); err != nil {
		return err
	}
	process.monitor = l.add() // below the PoP: /ready says so while it ends
	pop, err := n.runPoP(process, func() ([]listeners, error) { return process.bind(addrs, at(p.VIPs)) }, l.add())
	if err != nil {
		return err
	}
	announcer, err := n.announcerOf(process, f.bgpPasswords)
	if err != nil {
		return err
	}
	process.bgp = announcer
	announcer.start(l.add())
	monitored, err := f.monitor(command, n, process, pop)
	if err != nil {
		return err
	}
	fmt.Fprintf(command.OutOrStdout(), "PoP %s serves %v%s\n", name, addrs, monitored)
	if process.before == nil {
		systemd.Notify("READY=1")
	}
	return nil
}

// addresses returns those of --listen, or the known ones.
func (f *singleFlags) addresses(known func() []netip.AddrPort) ([]netip.AddrPort, error) {
	if f.listen == nil {
		return known(), nil
	}
	var addrs []netip.AddrPort
	for _, text := range f.listen {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("--listen %q is not an address and port such as 127.0.1.1:8443", text)
		}
		addrs = append(addrs, at)
	}
	return addrs, nil
}

func newClusterCommand() *cobra.Command {
	var flags singleFlags
	command := &cobra.Command{
		Use:   "cluster NAME",
		Short: "Run a reference cluster",
		Long: `Runs a reference cluster: it takes envelopes, checks their hashes, drops duplicates, keeps ids and
hashes in a file, and counts (GET /stats). Its folder and its token are in --dir.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := flags.read(command); err != nil {
				return err
			}
			l := newLayers()
			if err := startCluster(command.Context(), command, args[0], &flags, l); err != nil {
				return errors.Join(err, l.stop())
			}
			return l.wait(command.Context())
		},
	}
	flags.register(command, false)
	return command
}

func startCluster(ctx context.Context, command *cobra.Command, name string, f *singleFlags, l *layers) error {
	addrs, err := f.addresses(func() []netip.AddrPort { return nil })
	if err != nil {
		return err
	}
	if addrs == nil {
		n, err := f.start(ctx, command, "", name, filepath.Join("clusters", name, "last-good.yaml"), l)
		if err != nil {
			return err
		}
		c := n.Snapshot().Topology.Clusters[name]
		if c == nil {
			return fmt.Errorf("the topology has no cluster %s", name)
		}
		for _, endpoint := range c.Endpoints {
			u, err := url.Parse(endpoint)
			if err != nil || u.Scheme != "http" {
				continue
			}
			if at, err := netip.ParseAddrPort(u.Host); err == nil && !slices.Contains(addrs, at) {
				addrs = append(addrs, at)
			}
		}
		if addrs == nil {
			return fmt.Errorf("cluster %s has no endpoint such as http://127.0.2.1:8090 that could be listened on: say where with --listen", name)
		}
	}
	dir := stateDir(f.dir)
	unlock, err := dir.lock("clusters", name)
	if err != nil {
		return err
	}
	c, err := openCluster(dir, name)
	if err != nil {
		unlock()
		return err
	}
	l.add().run("cluster "+name, func(ctx context.Context) error { // ends when nobody uses it
		<-ctx.Done()
		unlock()
		return c.Close()
	})
	layer := l.add()
	for _, at := range addrs {
		listener, err := net.Listen("tcp", at.String())
		if err != nil {
			return listenError(at, "--listen", err)
		}
		layer.run("cluster "+name, func(ctx context.Context) error { return serveHTTP(ctx, listener, c) })
	}
	fmt.Fprintf(command.OutOrStdout(), "cluster %s takes envelopes at %v\n", name, addrs)
	systemd.Notify("READY=1")
	return nil
}

// newLogger logs to the terminal.
func newLogger(command *cobra.Command, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(command.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}
