package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/isochrone/isochrone/dataplane/agent"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/flagfile"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/internal/systemd"
	"github.com/isochrone/isochrone/topology"
)

// keyVariable is the environment variable that an agent's API key may stand in.
const keyVariable = "ISOCHRONE_API_KEY"

// agentFlags are the flags of "isochrone agent".
type agentFlags struct {
	config, dir, service string
	dns, ca, keyFile     string
	listen, http         netip.AddrPort
	anywhere             bool
	wait                 time.Duration
	maxBytes             int64
	keep                 []string
	onlyTCP, earlyData   bool
	verbose              bool
}

func newAgentCommand() *cobra.Command {
	f := agentFlags{listen: netip.MustParseAddrPort("127.0.0.1:8546"), http: netip.MustParseAddrPort("127.0.0.1:9156")}
	command := &cobra.Command{
		Use:   "agent",
		Short: "Take payloads of local programs over plain HTTP, and bring them to the nearest PoP",
		Long: `Listens on this machine for programs that speak plain HTTP, such as Geth. A payload that is posted to any path
is put into a small durable queue, and posted over HTTP/3 to the nearest PoP, or the next if that one is late,
until one has accepted or refused it: each with an Idempotency-Key, so that repetitions are known. The program
gets the PoP's answer, or, if there is none within --wait, a 202 that says "queued".

The API key stands in --key-file, or in the environment variable ISOCHRONE_API_KEY.`,
		Example: `  isochrone agent --service intake.example.net --key-file /etc/isochrone/api.key
  curl -H 'Content-Type: application/json' -d '{"hash":"0x1","sender":"0x2","amount":"3"}' http://127.0.0.1:8546/`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if f.config != "" {
				if err := flagfile.Read(f.config, command.Flags(), "config"); err != nil {
					return err
				}
			}
			l := newLayers()
			if err := f.start(command, l); err != nil {
				return errors.Join(err, l.stop())
			}
			return l.wait(command.Context())
		},
	}
	command.AddCommand(newAgentQueueCommands()...)
	flags := command.Flags()
	flags.StringVar(&f.config, "config", "", "YAML `file` with values of these flags; the command line wins over it")
	flags.StringVar(&f.dir, "dir", statedir.Default(), "state `folder`, with the queue in agent/")
	flags.StringVar(&f.service, "service", "", "`host` name of the service (default: the example's, of a running \"isochrone up\" in --dir)")
	flags.StringVar(&f.dns, "dns", "", "`address` and port of the DNS server (default: as up.json in --dir says, else the system's)")
	flags.StringVar(&f.ca, "ca", "", "`file` of the CA's certificate, or \"system\" (default: as up.json in --dir says, else system)")
	flags.StringVar(&f.keyFile, "key-file", "", "`file` with the API key, of mode 0600 (default: as up.json in --dir says)")
	flags.Var(addrPortValue{&f.listen}, "listen", "`address` and port for local programs")
	flags.BoolVar(&f.anywhere, "anywhere", false, "let --listen be an address that other machines reach; they need no key then")
	flags.Var(addrPortValue{&f.http}, "http", "`address` and port of /metrics, /ready and /live; empty for none")
	flags.DurationVar(&f.wait, "wait", 5*time.Second, "how long a program waits for the PoP's answer; 0 answers as soon as the payload is queued")
	flags.Int64Var(&f.maxBytes, "max-bytes", 64<<20, "of the queue; what does not fit is answered 503")
	flags.BoolVar(&f.onlyTCP, "h2", false, "use HTTP/2 over TCP alone")
	flags.StringSliceVar(&f.keep, "keep-header", []string{"X-Signature", "X-Timestamp"},
		"`fields` of a program's header that are sent on, beside Content-Type, Idempotency-Key and traceparent; at most 8")
	flags.BoolVar(&f.earlyData, "early-data", true, "save a round trip on new connections where the service allows it, by TLS early data (0-RTT)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more to the terminal")
	return command
}

// complete takes what no flag says from a running "isochrone up", or from the system.
func (f *agentFlags) complete() (key string, err error) {
	up, upErr := statedir.ReadUp(f.dir)
	key = os.Getenv(keyVariable)
	if f.keyFile != "" {
		text, err := privatefile.Read(f.keyFile, 1<<10)
		if err != nil {
			return "", fmt.Errorf("--key-file: %w", err)
		}
		key = strings.TrimSpace(string(text))
	}
	if upErr == nil {
		if key == "" {
			key = up.APIKey
		}
		f.service, f.dns, f.ca = cmp.Or(f.service, topology.ExampleService), cmp.Or(f.dns, up.DNS), cmp.Or(f.ca, up.CA)
	}
	if f.dns == "" {
		if f.dns, err = intakeclient.SystemResolver(); err != nil {
			return "", err
		}
	}
	for i, name := range f.keep {
		f.keep[i] = http.CanonicalHeaderKey(name)
		switch f.keep[i] {
		case "", "X-Api-Key", "Authorization", "Host", "Content-Length", "Content-Type", "Idempotency-Key", "Traceparent":
			return "", fmt.Errorf("--keep-header: %q is the agent's own", name)
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return "", fmt.Errorf("--keep-header: %q is not the name of a header field", name)
		}
	}
	switch {
	case len(f.keep) > 8:
		return "", fmt.Errorf("--keep-header: %d names, at most 8 are kept", len(f.keep))
	case f.service == "":
		return "", errors.New("no service: name its host by --service")
	case key == "":
		return "", fmt.Errorf("no API key: give a file with it by --key-file, or set %s", keyVariable)
	case !f.listen.Addr().IsLoopback() && !f.anywhere:
		return "", fmt.Errorf("--listen %v is no loopback address: whoever reaches it may post with this agent's key; --anywhere allows that", f.listen)
	}
	return key, nil
}

func (f *agentFlags) start(command *cobra.Command, l *layers) error {
	key, err := f.complete()
	if err != nil {
		return err
	}
	log := newLogger(command, f.verbose)
	config := intakeclient.Config{Early: f.earlyData}
	if f.ca != "" && f.ca != "system" {
		if config.Roots, err = readRoots(f.ca); err != nil {
			return err
		}
	}
	dir := stateDir(f.dir)
	unlock, err := dir.lock("agent")
	if err != nil {
		return err
	}
	queue, err := spool.Open(dir.path("agent", "spool"), spool.Options{MaxBytes: f.maxBytes, SegmentBytes: min(f.maxBytes/4+1, 16<<20), Outcomes: 10_000, Log: log})
	if err != nil {
		unlock()
		return err
	}
	resolver := &intakeclient.Resolver{Server: f.dns}
	a := agent.New(agent.Config{
		Service: f.service, Key: key, Queue: queue, Wait: f.wait, Log: log, Keep: f.keep,
		Sender: intakeclient.NewSender(intakeclient.SenderConfig{Service: f.service, Resolve: resolver.Lookup, Config: config, OnlyTCP: f.onlyTCP}),
	})
	l.add().run("agent", func(ctx context.Context) error {
		defer unlock()
		return a.Run(ctx)
	})
	listener, err := net.Listen("tcp", f.listen.String())
	if err != nil {
		return listenError(f.listen, "--listen", err)
	}
	l.add().run("local programs", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, a.Hurry)()
		return serveHTTP(ctx, listener, a)
	})
	if f.http.IsValid() {
		if err := f.monitor(a, queue, l); err != nil {
			return err
		}
	}
	fmt.Fprintf(command.OutOrStdout(), "the agent takes payloads for %s at http://%v\n", f.service, listener.Addr())
	systemd.Notify("READY=1")
	return nil
}

// monitor tells how the agent does. It is ready while its queue takes payloads.
func (f *agentFlags) monitor(a *agent.Agent, queue *spool.Spool, l *layers) error {
	listener, err := net.Listen("tcp", f.http.String())
	if err != nil {
		return listenError(f.http, "--http", err)
	}
	readiness := func(time.Time) readiness {
		held := queue.Stats()
		return ready(
			check{Name: "disk", OK: !held.Failing, Value: "takes what is written"},
			check{Name: "queue", OK: held.Bytes+held.DeadBytes < held.MaxBytes, Value: fmt.Sprintf("%d of %d bytes", held.Bytes+held.DeadBytes, held.MaxBytes)},
		)
	}
	m := &monitor{Registry: prometheus.NewRegistry(), readiness: readiness}
	for name, of := range map[string]struct {
		help  string
		value func(agent.Stats) uint64
	}{
		"taken":    {"Payloads that were taken from local programs.", func(s agent.Stats) uint64 { return s.Taken }},
		"accepted": {"Payloads that a PoP has accepted.", func(s agent.Stats) uint64 { return s.Accepted }},
		"refused":  {"Payloads that a PoP has refused for good.", func(s agent.Stats) uint64 { return s.Refused }},
		"retried":  {"Times that a payload was put off because no PoP gave a final answer.", func(s agent.Stats) uint64 { return s.Retried }},
	} {
		m.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "isochrone_agent_" + name + "_total", Help: of.help},
			func() float64 { return float64(of.value(a.Stats())) }))
	}
	gauge(m.Registry, "agent_queued", "Payloads that no PoP has accepted yet.", func() float64 { return float64(queue.Stats().Pending) })
	gauge(m.Registry, "agent_dead_letters", "Payloads that were refused when no program waited for the answer.", func() float64 { return float64(queue.Stats().Dead) })
	l.add().run("http", func(ctx context.Context) error { return m.run(ctx, listener) })
	return nil
}
