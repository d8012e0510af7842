package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/flagfile"
	"github.com/isochrone/isochrone/topology"
)

// registerHTTP adds the flag that says where a PoP can be monitored.
func (f *singleFlags) registerHTTP(flags *pflag.FlagSet) {
	f.http = netip.MustParseAddrPort("127.0.0.1:9154")
	flags.Var(addrPortValue{&f.http}, "http", "`address` and port of /metrics, /ready and /live; empty for none")
}

// read reads --config over the flags of the command line.
func (f *singleFlags) read(command *cobra.Command) error {
	if f.config == "" {
		return nil
	}
	return flagfile.Read(f.config, command.Flags(), "config")
}

// monitor has a PoP monitored, and returns what to say of it. Several PoPs of one machine cannot all have the default address; those
// that do not get it are not monitored.
func (f *singleFlags) monitor(command *cobra.Command, n *node, process *popProcess, pop *dataplane.PoP) (string, error) {
	if !f.http.IsValid() {
		return "", nil
	}
	l, err := process.pool.Stream(f.http)
	switch {
	case err != nil && command.Flags().Changed("http"):
		if errors.Is(err, syscall.EADDRINUSE) {
			return "", listenError(f.http, "--http", err)
		}
		return "", fmt.Errorf("--http: %w", err)
	case err != nil:
		n.log.Warn("this PoP has no metrics: name an address for them with --http", "error", err)
		return "", nil
	}
	m := newMonitor(n, func(time.Time) readiness { return n.popReadiness(process.name, pop) })
	m.MustRegister(passingCollector(process.name, process.mesh), pop.Collector(), n.certs.Collector(), process.bgp.speaker.Collector())
	m.bgp = process.bgp.speaker
	process.monitor.run("http", func(ctx context.Context) error { return m.run(ctx, l) })
	return fmt.Sprintf(" (http://%s)", l.Addr()), nil
}

// popReadiness tells whether a PoP accepts payloads.
func (n *node) popReadiness(name string, pop *dataplane.PoP) readiness {
	service := check{Name: "service", Value: "the topology in force does not have this PoP"}
	if snap := n.Snapshot(); snap != nil && snap.Topology.PoPs[name] != nil {
		state := snap.Topology.PoPs[name].State
		service.OK, service.Value = state != topology.Disabled, string(state)
	}
	ending := check{Name: "ending", OK: !pop.Draining(), Value: "no"}
	if !ending.OK {
		ending.Value = "the process ends, or a successor has taken over"
	}
	held := pop.Held()
	spool := check{Name: "spool", OK: !held.Failing, Value: "the disk takes what is written"}
	if held.Failing {
		spool.Value = "the disk has not taken the last write"
	}
	room := check{
		Name: "room", OK: !held.Full(), Value: fmt.Sprintf("%d envelopes, %d bytes", held.Pending, held.Bytes+held.DeadBytes),
		Bound: fmt.Sprintf("%d envelopes, %d bytes", held.Max, held.MaxBytes),
	}
	dead := check{Name: "dead_letters", OK: held.Dead == 0, Value: strconv.Itoa(held.Dead), Only: shown}
	return ready(service, ending, spool, room, dead, n.etcdCheck(), n.topologyCheck(), n.secretsCheck(), n.certsCheck(), n.vantagesCheck(), n.nameCheck())
}
