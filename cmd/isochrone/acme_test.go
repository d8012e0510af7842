package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// pebble is a running ACME server: Let's Encrypt's own for tests, which validates for real.
type pebble struct {
	directory string // URL
	root      string // file of the CA that its own certificate is of
	roots     string // URL of the root that its certificates are of
}

// pebbleLife is the lifetime of its certificates in seconds: they are renewed after two thirds of it.
const pebbleLife = 6

// What accounts there must be bound by.
const (
	pebbleEABKeyID = "kid-1"
	pebbleEABKey   = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// startPebble builds and starts an ACME server that asks a DNS server, and issues nothing for one name.
func startPebble(t *testing.T, dns, blocked string) *pebble {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "pebble")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	build.Dir = "../../internal/acmetest"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pebble: %v: %s", err, out)
	}
	ca, err := devca.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("127.0.0.1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := &pebble{root: devca.Path(dir)}
	acmeAt, manageAt := sockettest.Free(t).String(), sockettest.Free(t).String()
	p.directory, p.roots = "https://"+acmeAt+"/dir", "https://"+manageAt+"/roots/0"
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": acmeAt, "managementListenAddress": manageAt, "certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"domainBlocklist": []string{blocked}, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": true, "externalAccountMACKeys": map[string]string{pebbleEABKeyID: pebbleEABKey},
		"profiles": map[string]any{"default": map[string]any{"description": "short", "validityPeriod": pebbleLife}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"config.json": config, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", dns)
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	startCommand(t, "Pebble ", command)
	eventually(t, "the ACME server", func() error {
		c, err := net.Dial("tcp", acmeAt)
		if err == nil {
			c.Close()
		}
		return err
	})
	return p
}

// pool returns the root that certificates are of.
func (p *pebble) pool(t *testing.T) *x509.CertPool {
	t.Helper()
	own, err := os.ReadFile(p.root)
	if err != nil {
		t.Fatal(err)
	}
	trusted, issued := x509.NewCertPool(), x509.NewCertPool()
	trusted.AppendCertsFromPEM(own)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	defer client.CloseIdleConnections()
	response, err := client.Get(p.roots)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || !issued.AppendCertsFromPEM(text) {
		t.Fatalf("pebble's root: %q, %v", text, err)
	}
	return issued
}

// TestACME has a world get a certificate from a real ACME server, which asks its DNS server, show it, and renew it.
func TestACME(t *testing.T) {
	t.Parallel()
	const service, blocked = "intake.isochrone.test", "blocked.isochrone.test"
	at, dir := sockettest.Free(t).String(), t.TempDir()
	p := startPebble(t, at, blocked)
	hmac := filepath.Join(t.TempDir(), "eab")
	if err := os.WriteFile(hmac, []byte(pebbleEABKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startUp(t, dir, "--dns", at, "--acme-eab-key-id", pebbleEABKeyID, "--acme-eab-hmac-file", hmac, "--acme-directory", p.directory, "--acme-ca-root", p.root, "--acme-email", "ops@isochrone.test")
	roots := p.pool(t)
	served := func() (*x509.Certificate, error) {
		c, err := tls.Dial("tcp", r.PoPs["sin1"], &tls.Config{ServerName: service, RootCAs: roots})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0], nil
	}
	var first *x509.Certificate
	eventually(t, "the certificate", func() (err error) {
		first, err = served()
		return err
	})
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{r.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	refuse(t, r, client, service, blocked)
	eventually(t, "the renewal", func() error {
		now, err := served()
		if err == nil && now.SerialNumber.Cmp(first.SerialNumber) == 0 {
			err = errors.New("it is still the first one")
		}
		return err
	})
	nothingInClear(t, r, client, service)
	status := r.run(t, "status")
	for _, want := range []string{service + ": certificate by ACME from CN=Pebble", "valid until 20", "tickets: keys of session tickets, rotated by the leader at 20"} {
		if !strings.Contains(status, want) {
			t.Errorf("status does not tell %q:\n%s", want, status)
		}
	}
	if strings.Contains(r.output.String(), pebbleEABKey) {
		t.Error("the key of the account's binding is in the log")
	}
}

// TestACMEBindingFlags has what binds an account be wrong: it is told at the start, and the key is not.
func TestACMEBindingFlags(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "eab")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	directory := "https://ca.example/dir"
	for _, test := range []struct {
		flags issueFlags
		want  string
	}{
		{issueFlags{directory: directory, eabKeyID: "kid", eabHMACFile: file(pebbleEABKey + "==\n")}, ""},
		{issueFlags{directory: directory, eabKeyID: "kid"}, "want acme-eab-hmac-file too"},
		{issueFlags{directory: directory, eabHMACFile: file(pebbleEABKey)}, "want acme-eab-hmac-file too"},
		{issueFlags{eabKeyID: "kid", eabHMACFile: file(pebbleEABKey)}, "are for it"},
		{issueFlags{directory: directory, eabKeyID: "kid", eabHMACFile: file("not/base64url" + pebbleEABKey)}, "no key in base64url"},
		{issueFlags{directory: directory, eabKeyID: "kid", eabHMACFile: "/none"}, "no such file"},
	} {
		_, err := test.flags.binding()
		err = errors.Join(test.flags.check("control.key"), err)
		if got := fmt.Sprint(err); (err != nil) != (test.want != "") || !strings.Contains(got, test.want) || strings.Contains(got, pebbleEABKey[:20]) {
			t.Errorf("%+v: got %v, want %q", test.flags, err, test.want)
		}
	}
}

// refuse adds a service for which the CA issues nothing, and looks for the failure in metrics and log.
func refuse(t *testing.T, r *running, client *clientv3.Client, service, blocked string) {
	t.Helper()
	text := r.run(t, "topology", "get", "services/"+service)
	if _, err := client.Put(t.Context(), storeRoot+"topology/services/"+blocked, text); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(r.dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure of a name that the CA refuses", func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.API+"/metrics", nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		metrics, err := io.ReadAll(response.Body)
		if err == nil && !bytes.Contains(metrics, []byte("isochrone_control_acme_failing 1\n")) {
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		return err
	})
	if out := r.output.String(); !strings.Contains(out, blocked) || !strings.Contains(out, "could not be got") {
		t.Errorf("the log does not tell of it:\n%s", out)
	}
}

// nothingInClear looks for private keys in all that etcd has, and in what was logged.
func nothingInClear(t *testing.T, r *running, client *clientv3.Client, service string) {
	t.Helper()
	identities, err := sealed.ReadIdentities(filepath.Join(r.dir, "secrets.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := store.New(client, storeRoot).Sealed(t.Context(), "acme."+service)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := sealed.Open("acme."+service, s, identities)
	if err != nil {
		t.Fatal(err)
	}
	_, key, found := strings.Cut(string(opened), "PRIVATE KEY-----\n")
	if !found || len(key) < 64 {
		t.Fatal("there is no private key in the secret of PoPs")
	}
	all, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, kv := range all.Kvs {
		if strings.HasPrefix(string(kv.Key), storeRoot+"acme/store/") {
			kept++
		}
		if bytes.Contains(kv.Value, []byte("PRIVATE KEY")) || bytes.Contains(kv.Value, []byte(key[:40])) {
			t.Errorf("%s has a private key in clear", kv.Key)
		}
	}
	if kept < 4 { // the account with its key, and a certificate with key and notes
		t.Errorf("etcd keeps %d values of ACME, want the account and a certificate", kept)
	}
	if out := r.output.String(); strings.Contains(out, key[:40]) || strings.Contains(out, "PRIVATE KEY") {
		t.Error("a private key was logged")
	}
}
