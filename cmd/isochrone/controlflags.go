package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/flagfile"
	"github.com/isochrone/isochrone/internal/statedir"
)

// controlFlags are the flags of "isochrone control".
type controlFlags struct {
	config, dir, name string
	etcd              etcdFlags
	listen            netip.AddrPort
	cert, certKey     string
	insecure          bool
	caDir             string
	urls, relay       []string
	secretKey         string
	issue             issueFlags
	sources           sourceFlags
	probe, verbose    bool
	vantage           vantageFlags
}

func (f *controlFlags) register(flags *pflag.FlagSet) {
	f.listen = netip.MustParseAddrPort("127.0.0.1:8080")
	flags.StringVar(&f.config, "config", "", "YAML `file` with values of these flags; the command line wins over it")
	flags.StringVar(&f.dir, "dir", statedir.Default(), "`folder` that the state is kept in")
	flags.StringVar(&f.name, "name", hostName(), "`name` by which other nodes know this one")
	f.etcd.register(flags)
	flags.Var(addrPortValue{&f.listen}, "listen", "`address` and port of the API and the page")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate `file` of the API (PEM, with its chain), such as \"isochrone ca issue --kind control\" makes")
	flags.StringVar(&f.certKey, "tls-key", "", "private key `file` of --tls-cert (PEM)")
	flags.BoolVar(&f.insecure, "insecure", false, "serve in clear, to other machines too; tokens can be read on the way")
	flags.StringVar(&f.caDir, "ca-dir", "", "`folder` with the deployment's CA and its key: new nodes may join here")
	flags.StringSliceVar(&f.urls, "url", nil, "`URLs` of control planes that nodes which join are told")
	flags.StringSliceVar(&f.relay, "relay-url", nil, "`URLs` where nodes which join follow the topology (default: --url)")
	flags.StringVar(&f.secretKey, "secret-key", "", "key `file` of the role of control planes, of mode 0600: the leader makes keys of session tickets, and seals what PoPs get")
	flags.StringSliceVar(&f.issue.recipients, "pop-recipient", nil, "`recipients` (age1…) of the role of PoPs, who can open what the leader makes for them")
	flags.StringSliceVar(&f.issue.dnsRecipients, "dns-recipient", nil, "`recipients` (age1…) of the role of DNS nodes, who can open the key of probes")
	f.issue.register(flags)
	f.sources.register(flags)
	f.vantage.register(flags, false, "none")
	flags.BoolVar(&f.probe, "probe", true, "probe PoPs and clusters from here, with probe.key in --dir")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more to the terminal")
}

// complete reads --config over the flags of the command line, and checks what belongs together. All faults are told at once.
func (f *controlFlags) complete(flags *pflag.FlagSet) error {
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
	faults := []error{f.etcd.check(), f.issue.check(f.secretKey), f.vantage.check()}
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(!f.listen.IsValid(), "listen: say where to serve, such as 127.0.0.1:8080")
	fault((f.cert == "") != (f.certKey == ""), "tls-cert and tls-key: want both or none")
	fault(f.cert == "" && f.listen.IsValid() && !f.listen.Addr().IsLoopback() && !f.insecure,
		"listen: %v is for other machines, which would send their tokens in clear: name a certificate with tls-cert and tls-key (or say insecure)", f.listen)
	fault(f.cert != "" && f.insecure, "insecure: with tls-cert nothing is served in clear: want one of both")
	fault(f.secretKey != "" && len(f.issue.recipients) == 0, "pop-recipient: with secret-key, want the recipients (age1…) of PoPs, as \"isochrone secret keygen\" prints them")
	fault(f.caDir != "" && f.cert == "", "ca-dir: nodes join by TLS only: name a certificate with tls-cert and tls-key")
	fault(f.caDir != "" && len(f.urls) == 0, "url: nodes that join are told where control planes are: want such as https://control.example.net:8443")
	if err := ca.CheckName(f.name); err != nil {
		faults = append(faults, fmt.Errorf("name: %w", err))
	}
	return errors.Join(faults...)
}

func newControlCommand() *cobra.Command {
	f := new(controlFlags)
	command := &cobra.Command{
		Use:   "control",
		Short: "Run a control plane",
		Long: `Serves the control API and the operators' page for the topology in etcd, as a process of its own.
There may be several: each answers by itself, and one of them does the tasks that one is enough
for. It goes on without etcd, with what was in force last; edits fail meanwhile.`,
		Example: `  isochrone control --etcd https://192.0.2.10:2379 --etcd-ca ca.pem --etcd-cert control-c1.crt --etcd-key control-c1.key \
      --listen 192.0.2.20:8443 --tls-cert control-c1.crt --tls-key control-c1.key`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := f.complete(command.Flags()); err != nil {
				return err
			}
			return runControl(command, f)
		},
	}
	f.register(command.Flags())
	return command
}
