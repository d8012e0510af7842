package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/statedir"
)

// upOptions are the flags of "isochrone up".
type upOptions struct {
	dir            stateDir
	dns, api, etcd netip.AddrPort
	popPort        uint16
	popPortGiven   bool // and so wins over what the topology says
	oneAddress     bool
	sources        sourceFlags
	without        []string
	secretKey      string
	certs          certFlags
	issue          issueFlags
	seeing         seeingFlags
}

func newUpCommand() *cobra.Command {
	var (
		o              upOptions
		dir            string
		dns, api, etcd string
		verbose        bool
	)
	command := &cobra.Command{
		Use:   "up",
		Short: "Run the whole system in one process, on loopback",
		Long: `Runs an embedded etcd, the GeoDNS server, a dataplane for each PoP of the topology that has a
loopback address, reference clusters, the health checker and the control API. At the first
start it writes an example world into etcd. State is kept in --dir. Ctrl-C ends it.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			for _, flag := range []struct {
				name, text string
				addr       *netip.AddrPort
			}{{"dns", dns, &o.dns}, {"api", api, &o.api}, {"etcd", etcd, &o.etcd}} {
				if *flag.addr, err = netip.ParseAddrPort(flag.text); err != nil {
					return fmt.Errorf("--%s %q is not an address and port such as 127.0.0.1:5300", flag.name, flag.text)
				}
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return fmt.Errorf("--dir: %w", err)
			}
			o.dir, o.popPortGiven = stateDir(dir), command.Flags().Changed("pop-port")
			return up(command.Context(), o, newLogger(command, verbose), command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "dir", statedir.Default(), "`folder` that the state is kept in")
	flags.StringVar(&dns, "dns", "127.0.0.1:5300", "`address` and port of the DNS server, UDP and TCP; port 0 takes a free one")
	flags.StringVar(&api, "api", "127.0.0.1:8080", "`address` and port of the control API")
	flags.StringVar(&etcd, "etcd", "127.0.0.1:2379", "`address` and port of the embedded etcd")
	flags.Uint16Var(&o.popPort, "pop-port", defaultPoPPort, "`port` of all PoPs, UDP and TCP (default: as the topology says)")
	flags.BoolVar(&o.oneAddress, "one-address", false, "put all PoPs on 127.0.0.1, with ports of their own from --pop-port on")
	o.sources.register(flags)
	flags.StringSliceVar(&o.without, "without", nil, "`name` of a PoP or cluster not to run here (repeatable)")
	registerSecretKey(flags, &o.secretKey)
	o.certs.register(flags)
	o.issue.register(flags)
	o.seeing.register(flags)
	flags.BoolVarP(&verbose, "verbose", "v", false, "log more to the terminal")
	return command
}

// up runs a world until ctx ends or a part of it fails.
func up(ctx context.Context, o upOptions, log *slog.Logger, out io.Writer) error {
	began := time.Now()
	unlock, err := o.dir.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := statedir.RemoveUp(string(o.dir)); err != nil { // of a process that was killed
		return err
	}
	if o.issue.directory != "" && o.secretKey == "" {
		if o.secretKey, err = ownRoleKey(o.dir); err != nil {
			return err
		}
	}
	if err := o.issue.check(o.secretKey); err != nil {
		return err
	}
	w := newWorld(o, log)
	defer w.close()
	err = w.start(ctx)
	if err == nil {
		err = w.awaitReady(ctx)
	}
	if err == nil {
		err = statedir.WriteUp(string(o.dir), &w.known)
	}
	if err == nil {
		w.greet(out, time.Since(began))
		select {
		case <-ctx.Done():
		case err = <-w.layers.failed:
		}
	}
	if ctx.Err() != nil {
		err = nil // asked to end, maybe while it was still starting
		fmt.Fprintln(out, "\nending: what is in flight is finished, what is accepted is on disk")
	}
	return errors.Join(err, statedir.RemoveUp(string(o.dir)), w.layers.stop())
}
