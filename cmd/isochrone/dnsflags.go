package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/internal/flagfile"
	"github.com/isochrone/isochrone/internal/statedir"
)

// dnsFlags are the flags of "isochrone dns".
type dnsFlags struct {
	config, dir string
	name        string // among the DNS nodes; empty for the default
	follow      followFlags

	listen, tlsListen, httpsListen []netip.AddrPort
	cert, certKey                  string
	workers                        int
	segmentation                   bool
	sources                        sourceFlags
	settings                       settingsFlags

	http            netip.AddrPort
	user            string
	readyVerdictAge time.Duration
	readyGeoAge     time.Duration
	probe, verbose  bool
	serves          string // address and port, none, or empty for the default

	bgp, bgpPasswords string // files
	vantage           vantageFlags
}

// register adds the flags to a set.
func (f *dnsFlags) register(flags *pflag.FlagSet) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	f.settings.explainTo = loopback
	f.http = netip.MustParseAddrPort("127.0.0.1:9153")

	flags.StringVar(&f.config, "config", "", "YAML `file` with values of these flags; the command line wins over it")
	flags.StringVar(&f.dir, "dir", statedir.Default(), "`folder` that the state is kept in")
	flags.StringVar(&f.name, "name", "", "`name` among the DNS nodes, of which no two may have the same (default: as the node has joined, else that of the machine)")
	f.follow.register(flags)
	listVar(flags, &f.listen, "listen", parseAddrPort, "`address` and port to answer at, UDP and TCP (repeatable)")
	listVar(flags, &f.tlsListen, "tls-listen", parseAddrPort, "`address` and port for DNS over TLS (repeatable)")
	listVar(flags, &f.httpsListen, "https-listen", parseAddrPort, "`address` and port for DNS over HTTPS, TCP and QUIC (repeatable)")
	flags.StringVar(&f.cert, "cert", "", "certificate `file` (PEM, with its chain) for TLS and HTTPS")
	flags.StringVar(&f.certKey, "cert-key", "", "private key `file` of --cert (PEM)")
	flags.IntVar(&f.workers, "workers", runtime.NumCPU(), "`number` of UDP threads for each address")
	flags.BoolVar(&f.segmentation, "segmentation", true, "hand runs of answers to one client port to the system in one piece (Linux)")
	f.sources.register(flags)
	f.settings.register(flags)
	flags.Var(addrPortValue{&f.http}, "http", "`address` and port of /metrics, /ready and /live; empty for none")
	flags.StringVar(&f.user, "user", "", "`name` of the user to become once the sockets are bound")
	flags.DurationVar(&f.readyVerdictAge, "ready-verdict-age", time.Minute, "how `old` the newest probe may be while /ready says yes")
	flags.DurationVar(&f.readyGeoAge, "ready-geo-age", 0, "how `old` the geo database may be while /ready says yes (default: not checked)")
	flags.BoolVar(&f.probe, "probe", true, "probe the PoPs from here, with probe.key in --dir")
	f.vantage.register(flags, false, "the first address of --listen, port 8054")
	flags.StringVar(&f.serves, "serves", "", "`address` and port at which other nodes look whether this one answers, or none (default: the first of --listen that BGP does not announce)")
	flags.StringVar(&f.bgp, "bgp-config", "", "YAML `file` of the prefixes that this node announces by BGP, and of its peers")
	registerBGPPasswords(flags, &f.bgpPasswords)
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more to the terminal")
}

// complete reads --config over the flags of the command line, and checks what belongs together. All faults are told at once.
func (f *dnsFlags) complete(flags *pflag.FlagSet) error {
	if f.config != "" {
		if err := flagfile.Read(f.config, flags, "config"); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	f.dir = dir
	if f.settings.keys == "" {
		f.settings.keys = filepath.Join(dir, "dnssec-keys")
	}
	faults := []error{f.follow.check(), f.settings.check()}
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(f.listen) == 0, "listen: say where to answer, such as 192.0.2.53:53")
	fault(f.cert == "" && len(f.tlsListen)+len(f.httpsListen) > 0, "cert: TLS and HTTPS need a certificate and its key: name them with cert and cert-key")
	fault((f.cert == "") != (f.certKey == ""), "cert and cert-key: want both or none")
	fault(f.bgp == "" && f.bgpPasswords != "", "bgp-password-file: is for bgp-config, which is missing")
	fault(f.workers < 1 || f.workers > 1024, "workers: %d is not in 1..1024", f.workers)
	fault(f.readyVerdictAge <= 0, "ready-verdict-age: %v is not a positive duration such as 1m", f.readyVerdictAge)
	served, err := netip.ParseAddrPort(f.serves)
	fault(f.serves != "" && f.serves != noReports && (err != nil || served.Addr().IsUnspecified() || served.Port() == 0),
		"serves: %q is not an address and port at which other nodes can ask this one, such as 192.0.2.53:53, and not none", f.serves)
	fault(f.readyGeoAge < 0, "ready-geo-age: %v is negative: want 0 for no check, or a duration such as 720h", f.readyGeoAge)
	seen := map[netip.AddrPort]string{}
	for _, list := range []struct {
		flag  string
		addrs []netip.AddrPort
	}{{"listen", f.listen}, {"tls-listen", f.tlsListen}, {"https-listen", f.httpsListen}, {"http", []netip.AddrPort{f.http}}} {
		for _, at := range list.addrs {
			fault(at.Port() != 0 && seen[at] != "", "%s: %v is already an address of %s", list.flag, at, seen[at])
			seen[at] = list.flag
		}
	}
	return errors.Join(append(faults, f.vantage.check(), f.follow.named(f.dir, "dns", f.name))...)
}

// fixed are the flags that a running process cannot take anew, by name, with their values.
func (f *dnsFlags) fixed() map[string]string {
	values, texts := f.follow.texts(), map[string]string{}
	maps.Copy(values, map[string]any{
		"dir": f.dir, "listen": f.listen, "tls-listen": f.tlsListen,
		"https-listen": f.httpsListen, "workers": f.workers, "segmentation": f.segmentation, "http": f.http, "user": f.user, "probe": f.probe,
		"secret-key": f.settings.secretKey, "bgp-config": f.bgp, "reports": f.vantage.reports, "region": f.vantage.region,
		"serves": f.serves, "name": f.name,
	})
	for name, value := range values {
		texts[name] = fmt.Sprint(value)
	}
	return texts
}

// needRestart lists the flags whose new values wait for a restart.
func (f *dnsFlags) needRestart(next *dnsFlags) []string {
	var names []string
	before, after := f.fixed(), next.fixed()
	for name := range before {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func newDNSCommand() *cobra.Command {
	f := new(dnsFlags)
	command := &cobra.Command{
		Use:   "dns",
		Short: "Run a DNS node",
		Long: `Answers DNS questions for the zones of the topology in etcd, as a process of its own. It follows etcd
itself, or a control plane that relays it (--relay). It starts and goes on without either, with the
last good topology that it has kept in --dir. SIGHUP makes it read
--config again, SIGUSR2 has a newly installed program take over without a lost question.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			given := flagfile.Of(command.Flags())
			if err := f.complete(command.Flags()); err != nil {
				return err
			}
			return runDNSNode(command, f, given)
		},
	}
	f.register(command.Flags())
	command.AddCommand(newDNSKeyCommands()...)
	return command
}

// again reads the flags of the command line and the file anew.
func (f *dnsFlags) again(given flagfile.Given) (*dnsFlags, error) {
	next, flags := new(dnsFlags), pflag.NewFlagSet("dns", pflag.ContinueOnError)
	next.register(flags)
	if err := given.Apply(flags); err != nil {
		return nil, err
	}
	return next, next.complete(flags)
}
