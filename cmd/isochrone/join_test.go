package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// deployment is an etcd with TLS and authentication, set up by the commands that an operator runs, and a control plane that lets
// nodes in.
type deployment struct {
	t       *testing.T
	dir     string
	etcd    *embedded.Etcd
	control *httptest.Server
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: t.TempDir()}
	mustRun(t, "ca", "init", "--dir", d.dir)
	for _, line := range []string{
		"e1 --kind etcd-server --host 127.0.0.1", "root --kind etcd-root", "c1 --kind control --host 127.0.0.1", "alice --kind operator",
	} {
		mustRun(t, append(strings.Fields("ca issue "+line), "--dir", d.dir, "--out", d.dir)...)
	}
	var err error
	d.etcd, err = embedded.Start(t.Context(), embedded.Config{Dir: d.dir, Listen: "127.0.0.1:0", TLS: &embedded.TLS{
		Cert: d.file("etcd-server-e1.crt"), Key: d.file("etcd-server-e1.key"), ClientCA: d.file("ca.pem"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.etcd.Close)
	if said := mustFail(t, d.as("alice", "operator", "etcd", "init")...); !strings.Contains(said, "nobody could be root") {
		t.Errorf("an operator locks root out: %s", said)
	}
	plan := mustRun(t, d.as("root", "etcd-root", "etcd", "init", "--control", "c1", "--operator", "alice", "--dry-run")...)
	done := mustRun(t, d.as("root", "etcd-root", "etcd", "init", "--control", "c1", "--operator", "alice")...)
	if !strings.HasSuffix(plan, done) || !strings.Contains(done, "add user operator:alice, known by its certificate") {
		t.Errorf("planned\n%s\nand did\n%s", plan, done)
	}
	if again := mustRun(t, d.as("root", "etcd-root", "etcd", "init", "--control", "c1")...); strings.Count(again, "\n") != 1 {
		t.Errorf("done again: %s", again)
	}
	return d
}

func (d *deployment) file(name string) string { return filepath.Join(d.dir, name) }

// as returns a command with the flags by which somebody reaches etcd.
func (d *deployment) as(name, kind string, args ...string) []string {
	base := d.file(kind + "-" + name)
	return append(args, "--etcd", d.etcd.Endpoint(), "--etcd-ca", d.file("ca.pem"), "--etcd-cert", base+".crt", "--etcd-key", base+".key")
}

// client returns a client of etcd with a certificate.
func (d *deployment) client(cert, key string) *clientv3.Client {
	d.t.Helper()
	flags := etcdFlags{endpoints: []string{d.etcd.Endpoint()}, prefix: storeRoot, ca: d.file("ca.pem"), cert: cert, key: key}
	client, err := flags.connect(d.t.Context(), "")
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { client.Close() })
	return client
}

// serve starts the control plane.
func (d *deployment) serve() {
	d.t.Helper()
	authority, err := ca.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(d.file("control-c1.crt"), d.file("control-c1.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	r := &controlplane.Registrar{
		Etcd: d.client(d.file("control-c1.crt"), d.file("control-c1.key")), Root: storeRoot, CA: authority,
		Endpoints: []string{d.etcd.Endpoint()}, Now: time.Now,
	}
	d.control = httptest.NewUnstartedServer(controlplane.JoinHandler(r, slog.New(slog.NewTextHandler(io.Discard, nil))))
	d.control.TLS = &tls.Config{
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: authority.Pool(),
		Certificates: []tls.Certificate{pair},
	}
	d.control.StartTLS()
	d.t.Cleanup(d.control.Close)
	r.URLs = []string{d.control.URL}
}

// tokenFile invites a node, as somebody, and returns a file with its token.
func (d *deployment) tokenFile(asName, asKind string, args ...string) string {
	d.t.Helper()
	token := mustRun(d.t, d.as(asName, asKind, append([]string{"pop", "invite", "--control", d.control.URL}, args...)...)...)
	path := filepath.Join(d.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func TestPoPJoins(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.serve()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// With root's certificate the node has its user in etcd, and reaches it itself.
	token, home := d.tokenFile("root", "etcd-root", "sin1"), filepath.Join(t.TempDir(), "identity")
	if said := mustRun(t, "pop", "join", token, "--dir", home); !strings.Contains(said, "joined as pop:sin1") {
		t.Errorf("joining says %s", said)
	}
	id, err := identityDir(home).read()
	if err != nil || id.Name != "sin1" || id.Kind != "pop" || id.Control[0] != d.control.URL || id.Relay[0] != d.control.URL || id.Etcd[0] != d.etcd.Endpoint() {
		t.Errorf("join.yaml has %+v, %v", id, err)
	}
	if info, err := os.Stat(identityDir(home).key()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node.key: %v, %v", info, err)
	}
	sin1 := d.client(identityDir(home).cert(), identityDir(home).key())
	if _, err := sin1.Put(ctx, storeRoot+"nodes/pop:sin1", "alive"); err != nil {
		t.Errorf("the node cannot say that it is alive: %v", err)
	}
	for _, key := range []string{"nodes/pop:fra1", "nodes/dns:sin1", "topology/pops/sin1", "secrets/tsig.axfr"} {
		if _, err := sin1.Put(ctx, storeRoot+key, "mine"); err == nil {
			t.Errorf("the node writes %s", key)
		}
	}
	if said := mustFail(t, "pop", "join", token, "--dir", home); !strings.Contains(said, "has joined") {
		t.Errorf("joining in the same place says %s", said)
	}
	if said := mustFail(t, "pop", "join", token, "--dir", t.TempDir()); !strings.Contains(said, "403") || !strings.Contains(said, "used") {
		t.Errorf("joining twice says %s", said)
	}

	// Its certificate is renewed when it ends soon, or when somebody wants it.
	before, err := os.ReadFile(identityDir(home).cert())
	if err != nil {
		t.Fatal(err)
	}
	if said := mustRun(t, "pop", "renew", "--dir", home); !strings.Contains(said, "is valid until") {
		t.Errorf("renewing too soon says %s", said)
	}
	mustRun(t, "pop", "renew", "--dir", home, "--now")
	if after, err := os.ReadFile(identityDir(home).cert()); err != nil || string(after) == string(before) {
		t.Errorf("the certificate is the same, %v", err)
	}
	d.client(identityDir(home).cert(), identityDir(home).key())

	// A node does that itself, whatever else it cannot do yet.
	short := d.nearlyOver(home)
	pop := d.node(filepath.Dir(home))
	ctxFollow, stop := context.WithCancel(ctx)
	followed := make(chan error)
	go func() {
		followed <- pop.follow(ctxFollow, func(context.Context) (*upstream, error) { return nil, errors.New("away") }, nil)
	}()
	eventually(t, "a certificate that ends soon is renewed", func() error {
		pair, err := tls.LoadX509KeyPair(identityDir(home).cert(), identityDir(home).key())
		if err == nil && !pair.Leaf.NotAfter.After(short) {
			err = errors.New("it is not")
		}
		return err
	})
	stop()
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Errorf("following ends with %v", err)
	}

	// An operator invites too; the control plane may make no users in etcd, and the node follows by the relay.
	token, other := d.tokenFile("alice", "operator", "ns1", "--kind", "dns"), filepath.Join(t.TempDir(), "identity")
	mustRun(t, "pop", "join", token, "--dir", other)
	if id, err = identityDir(other).read(); err != nil || id.Kind != "dns" || len(id.Etcd) > 0 {
		t.Errorf("join.yaml has %+v, %v", id, err)
	}

	if said := mustRun(t, d.as("root", "etcd-root", "pop", "expel", "sin1", "--yes")...); !strings.Contains(said, "turned out") {
		t.Errorf("turning out says %s", said)
	}
	if said := mustFail(t, "pop", "renew", "--dir", home, "--now"); !strings.Contains(said, "403") || !strings.Contains(said, "turned out") {
		t.Errorf("renewing after that says %s", said)
	}
	if _, err := sin1.Get(ctx, storeRoot+"topology/pops/sin1"); err == nil {
		t.Error("who was turned out reads etcd")
	}
	d.refusals(ctx)
}

// node returns a PoP that has joined.
func (d *deployment) node(home string) *node {
	log := slog.New(slog.DiscardHandler)
	return newNode("pop", "sin1", stateDir(home), filepath.Join(home, "last-good.yaml"), log, newContact(log, "the relay"))
}

// nearlyOver gives a node a certificate that ends soon, of which its record says that it is its newest, and returns its end.
func (d *deployment) nearlyOver(home string) time.Time {
	t := d.t
	t.Helper()
	authority, err := ca.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(identityDir(home).cert(), identityDir(home).key())
	if err != nil {
		t.Fatal(err)
	}
	key := pair.PrivateKey.(*ecdsa.PrivateKey)
	cert, err := authority.Issue(ca.Request{Kind: ca.PoP, Name: "sin1", Public: &key.PublicKey, Lifetime: 10 * time.Minute}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root := d.client(d.file("etcd-root-root.crt"), d.file("etcd-root-root.key"))
	record := storeRoot + "tokens/node/pop:sin1"
	got, err := root.Get(t.Context(), record)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("the node's record: %v, %v", got, err)
	}
	text := strings.Replace(string(got.Kvs[0].Value), pair.Leaf.SerialNumber.Text(16), cert.SerialNumber.Text(16), 1)
	if _, err := root.Put(t.Context(), record, text); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(identityDir(home).cert(), ca.EncodeCertificate(cert.Raw), 0o644); err != nil {
		t.Fatal(err)
	}
	return cert.NotAfter
}

// refusals are tokens that let nobody in.
func (d *deployment) refusals(ctx context.Context) {
	t := d.t
	t.Helper()
	expired := d.tokenFile("alice", "operator", "lhr1", "--expires", "1ms") // it ends with a whole second, and so at once
	if said := mustFail(t, "pop", "join", expired, "--dir", t.TempDir()); !strings.Contains(said, "403") || !strings.Contains(said, "expired") {
		t.Errorf("an expired token: %s", said)
	}
	if said := mustFail(t, d.as("alice", "operator", "etcd", "init", "--root-password-file", expired)...); !strings.Contains(said, "only root may") {
		t.Errorf("an operator sets etcd up: %s", said)
	}

	// A server with another CA, to which not even the token's id is said.
	stranger, err := ca.Create(filepath.Join(t.TempDir(), "ca"), "stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := stranger.Issue(ca.Request{Kind: ca.Control, Name: "c1", Hosts: []string{"127.0.0.1"}, Public: &key.PublicKey}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var heard atomic.Int64
	l := newCountingListener(t, &heard, &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{cert.Raw, stranger.Certificate().Raw}, PrivateKey: key,
	}}})
	token, err := readJoinToken(d.tokenFile("alice", "operator", "lhr1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	token.URLs = []string{"https://" + l}
	if _, err := join(ctx, token, identityDir(t.TempDir())); err == nil || !strings.Contains(err.Error(), "no control plane of the deployment") {
		t.Errorf("a stranger: got %v", err)
	}
	if n := heard.Load(); n > 0 {
		t.Errorf("a stranger heard %d octets", n)
	}
	var roles []string
	for _, r := range store.Roles {
		roles = append(roles, string(r))
	}
	if said := mustRun(t, "etcd", "roles"); !strings.Contains(said, strings.ToUpper(roles[0])) || !strings.Contains(said, "tokens/") {
		t.Errorf("etcd roles prints %s", said)
	}
}

// newCountingListener takes connections, as a server that counts the octets it hears after the handshake, and returns where.
func newCountingListener(t *testing.T, heard *atomic.Int64, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, c) // the handshake is made by the first read
			heard.Add(n)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}
