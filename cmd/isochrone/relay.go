package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/topology/relay"
	"github.com/isochrone/isochrone/topology/store"
)

// newHub returns a relay of the store in etcd. It is to run, and to be mounted at relay.Path of a server with HTTP/2 that verifies the
// client certificates that are given (tls.VerifyClientCertIfGiven) with the CA of the nodes. Who of those may follow, admit says.
func newHub(client *clientv3.Client, root string, admit func(*x509.Certificate) error, log *slog.Logger) *relay.Hub {
	s := store.New(client, root)
	return relay.NewHub(relay.Config{
		Feed: s.Feed(store.SectionsOf("control")), Revision: s.Revision, Register: s.Register, Admit: admit, Log: log,
		Quota: quotaForRelay(quota.NewEtcdStore(client, root)),
	})
}

// identityFolder is where a node that has joined keeps its certificate, in the state folder.
const identityFolder = "identity"

// followFlags say what a node follows: a relay or etcd itself.
type followFlags struct {
	etcd          etcdFlags
	relays        []string
	ca, cert, key string // for relays

	name string // under which this node has joined, if it has
}

// named refuses a name that this node cannot have: it has joined under another, or shows a certificate or is a user of another.
func (f *followFlags) named(dir, kind, name string) error {
	if name == "" {
		return nil
	}
	if !nodeNames.MatchString(name) {
		return fmt.Errorf("name: %q is not 1 to 63 letters, digits, dots and hyphens that begins with a letter or digit, such as dns-fra1", name)
	}
	r, err := f.resolved(dir)
	if err != nil {
		return nil // it is told when the node follows
	}
	if is := r.nodeName(kind); (r.name != "" || strings.HasPrefix(r.etcd.user, kind+":")) && is != name {
		return fmt.Errorf("name: this node is known as %s (it has joined so, or is that user of etcd), and cannot be %s", is, name)
	}
	return f.mismatch(dir, kind, name)
}

// nodeNames are the names that a node may be given.
var nodeNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)

func (f *followFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.relays, "relay", nil, "`URLs` of control planes to follow the topology through, in place of etcd; they are tried in turn")
	flags.StringVar(&f.ca, "relay-ca", "", "`file` of the CA of --relay (PEM; default: as the node has joined)")
	flags.StringVar(&f.cert, "relay-cert", "", "client certificate `file` for --relay (PEM; default: as the node has joined)")
	flags.StringVar(&f.key, "relay-key", "", "private key `file` of --relay-cert (PEM)")
	f.etcd.register(flags)
}

func (f *followFlags) check() error {
	faults := []error{f.etcd.check()}
	if len(f.relays) > 0 && len(f.etcd.endpoints) > 0 {
		faults = append(faults, errors.New("relay and etcd: want one of them"))
	}
	if (f.cert == "") != (f.key == "") {
		faults = append(faults, errors.New("relay-cert and relay-key: want both or none"))
	}
	for _, url := range f.relays {
		if !strings.HasPrefix(url, "https://") {
			faults = append(faults, fmt.Errorf("relay: %q is not a URL such as https://control.example.net:8443", url))
		}
	}
	return errors.Join(faults...)
}

// texts are the values by the flags' names.
func (f *followFlags) texts() map[string]any {
	return map[string]any{
		"relay": f.relays, "relay-ca": f.ca, "relay-cert": f.cert, "relay-key": f.key, "etcd": f.etcd.endpoints, "etcd-prefix": f.etcd.prefix,
		"etcd-cert": f.etcd.cert, "etcd-key": f.etcd.key, "etcd-ca": f.etcd.ca, "etcd-user": f.etcd.user, "etcd-password-file": f.etcd.passwordFile,
	}
}

// resolved returns the flags with what joining has left in the state folder, where the flags do not say otherwise.
func (f *followFlags) resolved(dir string) (*followFlags, error) {
	r := *f
	identity := identityDir(filepath.Join(dir, identityFolder))
	id, err := identity.read()
	if errors.Is(err, fs.ErrNotExist) && len(r.relays) > 0 && r.cert == "" {
		return nil, fmt.Errorf("relay-cert: %w: name its certificate and key", err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &r, nil
	}
	if err != nil {
		return nil, err
	}
	if len(r.relays) == 0 && len(r.etcd.endpoints) == 0 {
		if r.relays = id.Relay; len(id.Relay) == 0 && len(id.Etcd) > 0 {
			r.etcd.endpoints, r.etcd.prefix = id.Etcd, cmp.Or(id.EtcdPrefix, r.etcd.prefix)
			r.etcd.ca, r.etcd.cert, r.etcd.key = cmp.Or(r.etcd.ca, identity.ca()), cmp.Or(r.etcd.cert, identity.cert()), cmp.Or(r.etcd.key, identity.key())
		}
	}
	r.name, r.ca = id.Name, cmp.Or(r.ca, identity.ca())
	if r.cert == "" {
		r.cert, r.key = identity.cert(), identity.key()
	}
	return &r, nil
}

// with says what is followed, for people.
func (f *followFlags) with(dir string) string {
	if r, err := f.resolved(dir); err == nil && len(r.relays) > 0 || len(f.relays) > 0 {
		return "the relay"
	}
	return "etcd"
}

// mismatch tells when this node has the certificate of another one, which does not pass by itself.
func (f *followFlags) mismatch(dir, kind, name string) error {
	r, err := f.resolved(dir)
	if kind == "" || err != nil || len(r.relays) == 0 {
		return nil
	}
	if _, err := r.tls(kind, name); errors.Is(err, errOtherNode) {
		return err
	}
	return nil
}

// nodeName returns the name of a node of a kind that was given none: as it has joined, as etcd knows it, or that of the machine.
func (f *followFlags) nodeName(kind string) string {
	user, ok := strings.CutPrefix(f.etcd.user, kind+":")
	if !ok {
		user = ""
	}
	return cmp.Or(f.name, user, hostName())
}

// knownAs returns the name by which others know a node, as far as that can be found out now.
func (f *followFlags) knownAs(dir, kind, name string) string {
	r, err := f.resolved(dir)
	if err != nil {
		r = f
	}
	if len(r.relays) > 0 {
		if pair, err := tls.LoadX509KeyPair(r.cert, r.key); err == nil {
			return pair.Leaf.Subject.CommonName
		}
	}
	return store.NodeName(kind, cmp.Or(name, r.nodeName(kind)))
}

// connect returns what a node of a kind with a name follows; without a name it gets one. What fails now may be good later.
func (f *followFlags) connect(ctx context.Context, dir, kind, name string) (*upstream, error) {
	r, err := f, error(nil)
	if kind != "" { // others have not joined
		r, err = f.resolved(dir)
	}
	if err != nil {
		return nil, err
	}
	if len(r.relays) == 0 {
		client, err := r.etcd.connect(ctx, dir)
		if err != nil {
			return nil, err
		}
		return etcdUpstream(client, r.etcd.prefix, kind, cmp.Or(name, r.nodeName(kind))), nil
	}
	config, err := r.tls(kind, name)
	if err != nil {
		return nil, err
	}
	client := relay.NewClient(r.relays, config)
	return &upstream{
		feed: client.Feed, register: client.Register, quota: relayed{client},
		close: func() error { client.Close(); return nil },
	}, nil
}

// errOtherNode is returned for what was made for another node.
var errOtherNode = errors.New("the certificate of another node")

// tls returns the configuration for relays, of a node of a kind, whose certificate must have its name, if it is given one.
func (f *followFlags) tls(kind, name string) (*tls.Config, error) {
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("relay-cert: %w", err)
		}
		return &pair, nil
	}
	pair, err := load()
	if err != nil {
		return nil, err
	}
	if of := pair.Leaf.Subject.CommonName; name != "" && of != store.NodeName(kind, name) || !strings.HasPrefix(of, kind+":") {
		return nil, fmt.Errorf("relay-cert: %s is %w: of %q, and this is %s", f.cert, errOtherNode, of, store.NodeName(kind, name))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }} // it may have been renewed
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("relay-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("relay-ca: %s has no certificate in PEM", f.ca)
		}
	}
	return config, nil
}
