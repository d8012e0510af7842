package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// guarded is an etcd with TLS, in which users are known by their certificates.
type guarded struct {
	endpoint  string
	authority *ca.CA
	old       bool // of a release that does not check nested transactions
}

// issue writes a certificate and its key into a folder.
func issue(t *testing.T, authority *ca.CA, dir string, r ca.Request) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Public = &private.PublicKey
	issued, err := authority.Issue(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, string(r.Kind)+".crt"), filepath.Join(dir, string(r.Kind)+".key")
	text, err := ca.EncodeKey(private)
	if err := errors.Join(err, os.WriteFile(cert, ca.EncodeCertificate(issued.Raw), 0o600), os.WriteFile(key, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// client returns a client with the certificate of a kind and name, or with none.
func (g *guarded) client(t *testing.T, kind ca.Kind, name string) *clientv3.Client {
	t.Helper()
	config := &tls.Config{RootCAs: g.authority.Pool()}
	if kind != "" {
		r := ca.Request{Kind: kind, Name: name}
		if kind == ca.Control {
			r.Hosts = []string{"127.0.0.1"}
		}
		pair, err := tls.LoadX509KeyPair(issue(t, g.authority, t.TempDir(), r))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{g.endpoint}, TLS: config, Logger: zap.NewNop(), DialTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// startGuarded starts the embedded etcd, or that of the machine.
func startGuarded(t *testing.T, external bool) *guarded {
	t.Helper()
	dir := t.TempDir()
	authority, err := ca.Create(filepath.Join(dir, "ca"), "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key := issue(t, authority, dir, ca.Request{Kind: ca.EtcdServer, Name: "e1", Hosts: []string{"127.0.0.1"}})
	files := &embedded.TLS{Cert: cert, Key: key, ClientCA: ca.Path(filepath.Join(dir, "ca"))}
	if !external {
		etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: "127.0.0.1:0", TLS: files})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(etcd.Close)
		return &guarded{endpoint: etcd.Endpoint(), authority: authority}
	}
	program, err := exec.LookPath("etcd")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("etcd is missing: install etcd-server")
	} else if err != nil {
		t.Skip("etcd is missing: install etcd-server")
	}
	url := "https://" + sockettest.Free(t).String()
	command := exec.Command(program, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error", "--logger", "zap",
		"--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", "http://127.0.0.1:0",
		"--cert-file", cert, "--key-file", key, "--trusted-ca-file", files.ClientCA, "--client-cert-auth")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	return &guarded{endpoint: url, authority: authority, old: true}
}

// TestRoles tries, for each prefix of the table and each role, what the role may do there and what it may not.
func TestRoles(t *testing.T) {
	for name, external := range map[string]bool{"embedded": false, "of the machine": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, external)
			root := g.client(t, ca.EtcdRoot, "root")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			users := []User{{Role: NodeDNS, Name: "n1"}, {Role: NodePoP, Name: "n1"}, {Role: Operator, Name: "n1"}, {Role: Control, Name: "n1"}}
			if err := SetUp(ctx, root, "/isochrone", Setup{Users: users, Tell: func(string) {}}); err != nil {
				t.Fatal(err)
			}
			if _, err := g.client(t, ca.Operator, "stranger").Get(ctx, "/isochrone/topology/"); err == nil {
				t.Error("who is no user of etcd reads it")
			}
			kinds := map[Role]ca.Kind{NodeDNS: ca.DNS, NodePoP: ca.PoP, Operator: ca.Operator, Control: ca.Control}
			clients := map[Role]*clientv3.Client{}
			for role, kind := range kinds {
				clients[role] = g.client(t, kind, "n1")
			}
			work(t, ctx, clients)
			for _, p := range Table() {
				for role, client := range clients {
					tryPrefix(t, ctx, client, role, p, g.old)
				}
			}
			for role, client := range clients {
				tryElsewhere(t, ctx, client, role)
			}
		})
	}
}

// tryPrefix holds what a client may do below a prefix to the table.
func tryPrefix(t *testing.T, ctx context.Context, client *clientv3.Client, role Role, p PrefixAccess, old bool) {
	t.Helper()
	prefix := "/isochrone/" + p.Prefix
	may := func(what string, want bool, err error) {
		t.Helper()
		switch {
		case want && err != nil:
			t.Errorf("%s may %s %s, and got %v", role, what, p.Prefix, err)
		case !want && !errors.Is(err, rpctypes.ErrPermissionDenied):
			t.Errorf("%s may not %s %s, and got %v", role, what, p.Prefix, err)
		}
	}
	reads, writes, own := p.Of(role) != None, p.Of(role) == Write, p.Of(role) >= Own
	_, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	may("read", reads, err)
	_, err = client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(prefix).WithPrefix(), "<", 1)).Commit()
	may("compare", reads, err)
	may("watch", reads, watch(ctx, client, prefix))
	_, err = client.Put(ctx, prefix+"n2", "")
	may("put another's key in", writes, err)
	_, err = client.Delete(ctx, prefix+"n2")
	may("delete another's key in", writes, err)
	self := prefix + UserName(role, "n1")
	_, err = client.Put(ctx, self, "")
	may("put its own key in", own, err)
	_, err = client.Delete(ctx, self)
	may("delete its own key in", own, err)
	_, err = client.Put(ctx, self+"/more", "")
	may("put below its own key in", writes, err)
	if !old {
		nested := clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(prefix+"n2", "")}, nil)}, nil)
		_, err = client.Txn(ctx).Then(nested).Commit()
		may("put in a nested transaction in", writes, err)
	}
}

// watch returns why a prefix cannot be watched.
func watch(ctx context.Context, client *clientv3.Client, prefix string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response := <-client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if err := response.Err(); err != nil && strings.Contains(err.Error(), "permission denied") {
		return rpctypes.ErrPermissionDenied // as old releases do not say it
	} else if err != nil {
		return err
	}
	return nil
}

// tryElsewhere tries what only root may do.
func tryElsewhere(t *testing.T, ctx context.Context, client *clientv3.Client, role Role) {
	t.Helper()
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s may not %s, and got %v", role, what, err)
		}
	}
	_, err := client.Get(ctx, "", clientv3.WithPrefix())
	refused("read everything", err)
	_, err = client.Put(ctx, "/elsewhere", "")
	refused("put elsewhere", err)
	_, err = client.Put(ctx, "/isochrone/unknown/n1", "")
	refused("put in a prefix that the table does not have", err)
	_, err = client.UserAdd(ctx, "mallory", "secret")
	refused("add a user", err)
	_, err = client.RoleGrantPermission(ctx, string(role), "/", "0", clientv3.PermissionType(clientv3.PermReadWrite))
	refused("grant permissions", err)
	_, err = client.AuthDisable(ctx)
	refused("turn authentication off", err)
	refused("add a user by the name of AddUser", asEtcd(AddUser(ctx, client, "/isochrone", User{Role: NodePoP, Name: "n3"})))
}

func asEtcd(err error) error {
	if errors.Is(err, ErrPermission) {
		return rpctypes.ErrPermissionDenied
	}
	return err
}

// work does with each role what it is there for.
func work(t *testing.T, ctx context.Context, clients map[Role]*clientv3.Client) {
	t.Helper()
	for _, role := range []Role{Operator, Control} {
		s := New(clients[role], "/isochrone")
		x := example()
		x.PoPs[topology.ExamplePoPs[0]].Location.City = string(role)
		revision, err := s.Apply(ctx, Change{Put: objects(x), Author: string(role)})
		if err != nil {
			t.Fatalf("%s applies: %v", role, err)
		}
		if _, err := s.Apply(ctx, Change{Put: objects(example()), Author: string(role), Base: revision}); err != nil {
			t.Errorf("%s applies again: %v", role, err)
		}
		now := time.Now().UTC()
		drain := &topology.Override{Schema: topology.FirstSchema, Kind: topology.Drain, PoP: "sin1", Reason: "test", Author: "test", Created: now, Expires: now.Add(time.Hour)}
		if _, err := s.PutOverride(ctx, "drain", drain); err != nil {
			t.Errorf("%s drains: %v", role, err)
		}
		if _, err := s.DeleteOverride(ctx, "drain", "test"); err != nil {
			t.Errorf("%s drains no more: %v", role, err)
		}
	}
	for role, client := range clients {
		follows := SectionsOf(strings.TrimPrefix(string(role), "node-"))
		var reads []clientv3.Op
		for _, section := range follows {
			reads = append(reads, clientv3.OpGet("/isochrone/"+section, clientv3.WithPrefix()))
			if err := watch(ctx, client, "/isochrone/"+section); err != nil {
				t.Errorf("%s follows %s: %v", role, section, err)
			}
		}
		if _, err := client.Txn(ctx).Then(reads...).Commit(); err != nil {
			t.Errorf("%s reads %d sections at once: %v", role, len(reads), err)
		}
		lease, err := client.Grant(ctx, 60)
		if err != nil {
			t.Errorf("%s takes a lease: %v", role, err)
			continue
		}
		if _, err = client.Put(ctx, "/isochrone/nodes/"+UserName(role, "n1"), "", clientv3.WithLease(lease.ID)); (err == nil) != (role != Operator) {
			t.Errorf("%s says that it is alive: %v", role, err)
		}
		if _, err := client.Revoke(ctx, lease.ID); err != nil {
			t.Errorf("%s gives its lease back: %v", role, err)
		}
	}
	session, err := concurrency.NewSession(clients[Control], concurrency.WithTTL(10))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for _, prefix := range []string{"/isochrone/leader", "/isochrone/leader/"} {
		election := concurrency.NewElection(session, prefix)
		if err := errors.Join(election.Campaign(ctx, "n1"), election.Resign(ctx)); err != nil {
			t.Errorf("a control plane is elected below %s: %v", prefix, err)
		}
	}
}

func TestSetUpTwice(t *testing.T) {
	g := startGuarded(t, false)
	ctx, root := t.Context(), g.client(t, ca.EtcdRoot, "root")
	setUp := func(dry bool) (told []string) {
		t.Helper()
		err := SetUp(ctx, root, "/isochrone/", Setup{
			Users:  []User{{Role: NodePoP, Name: "sin1"}, {Role: Operator, Name: "alice", Password: "open sesame"}},
			DryRun: dry, Tell: func(line string) { told = append(told, line) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	planned := setUp(true)
	if roles, err := root.RoleList(ctx); err != nil || len(roles.Roles) > 0 {
		t.Errorf("a dry run made %v, %v", roles, err)
	}
	done := setUp(false)
	if fmt.Sprint(planned) != fmt.Sprint(done) {
		t.Errorf("did\n%s\nand planned\n%s", strings.Join(done, "\n"), strings.Join(planned, "\n"))
	}
	for _, want := range []string{
		"role node-pop: grant readwrite [/isochrone/quota/, /isochrone/quota0)", "role pop:sin1: grant write /isochrone/nodes/pop:sin1",
		"add user pop:sin1, known by its certificate", "add user operator:alice, with a password", "turn authentication on",
	} {
		if !slices.Contains(done, want) {
			t.Errorf("did not %q, but\n%s", want, strings.Join(done, "\n"))
		}
	}
	if again := setUp(false); len(again) > 0 {
		t.Errorf("done twice: %q", again)
	}
	// What somebody has widened is narrowed, what is missing is made good, and another deployment's is left alone.
	write := clientv3.PermissionType(clientv3.PermReadWrite)
	for key, end := range map[string]string{"/isochrone/tokens/": "/isochrone/tokens0", "/other/": "/other0"} {
		if _, err := root.RoleGrantPermission(ctx, "node-pop", key, end, write); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.RoleRevokePermission(ctx, "node-pop", "/isochrone/keys/", "/isochrone/keys0"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"role node-pop: revoke readwrite [/isochrone/tokens/, /isochrone/tokens0)", "role node-pop: grant read [/isochrone/keys/, /isochrone/keys0)",
	}
	if got := setUp(false); !slices.Equal(got, want) {
		t.Errorf("mended %q, want %q", got, want)
	}
	if err := SetUp(ctx, g.client(t, ca.PoP, "sin1"), "/isochrone", Setup{Tell: func(string) {}}); !errors.Is(err, ErrPermission) {
		t.Errorf("set up by a node: got %v, want %v", err, ErrPermission)
	}
	if err := RemoveUser(ctx, root, NodePoP, "sin1"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.client(t, ca.PoP, "sin1").Get(ctx, "/isochrone/topology/"); err == nil {
		t.Error("a removed user still reads")
	}
}

func TestUserNames(t *testing.T) {
	for _, role := range Roles {
		got, name, err := ParseUserName(UserName(role, "sin1"))
		if err != nil || got != role || name != "sin1" {
			t.Errorf("%s: got %s, %s, %v", role, got, name, err)
		}
	}
	for _, bad := range []string{"", "root", "pop:", "node-pop:sin1", ":sin1", "etcd-peer"} {
		if role, name, err := ParseUserName(bad); err == nil {
			t.Errorf("%q: got %s, %s", bad, role, name)
		}
	}
}

func TestHoldsRoles(t *testing.T) {
	for version, want := range map[string]bool{
		"3.4.23": false, "3.4.99": false, "3.5.32": false, "3.5.33": true, "3.6.13": false, "3.6.14": true, "3.7.0": false, "3.7.3": true,
		"3.8.0": true, "4.0.0": true, "": false, "next": false, "3.7.1-rc.0": true,
	} {
		if got := HoldsRoles(version); got != want {
			t.Errorf("%q: got %v, want %v", version, got, want)
		}
	}
}

// TestRolesAreDocumented holds the table of docs/control-plane.md to that of the code.
func TestRolesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/control-plane.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	fmt.Fprint(&want, "| prefix |")
	for _, r := range Roles {
		fmt.Fprintf(&want, " %s |", r)
	}
	fmt.Fprint(&want, " why |\n| --- |"+strings.Repeat(" --- |", len(Roles)+1)+"\n")
	for _, p := range Table() {
		fmt.Fprintf(&want, "| `%s` |", p.Prefix)
		for _, r := range Roles {
			fmt.Fprintf(&want, " %s |", p.Of(r))
		}
		fmt.Fprintf(&want, " %s |\n", p.Why)
	}
	if !strings.Contains(string(text), want.String()+"\n") {
		t.Errorf("docs/control-plane.md does not have this table:\n%s", &want)
	}
}
