package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// issuer is the CA of nodes, in a test.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := new(issuer)
	pair := i.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	i.cert, i.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return i
}

func (i *issuer) issue(t *testing.T, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// join writes what a node has that has joined under a name.
func (i *issuer) join(t *testing.T, dir, name string, relays ...string) {
	t.Helper()
	pair := i.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, identityFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{
		"node.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		"node.key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"ca.crt":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}),
		"join.yaml": []byte("relay: [" + strings.Join(relays, ", ") + "]\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, identityFolder, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// startRelay relays an etcd at an address until stop or the test's end.
func (i *issuer) startRelay(t *testing.T, client *clientv3.Client, at string) (url string, stop func()) {
	t.Helper()
	var l net.Listener
	eventually(t, "the relay's port", func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	pool := x509.NewCertPool()
	pool.AddCert(i.cert)
	hub := newHub(client, storeRoot, nil, slog.New(slog.DiscardHandler))
	server := &http.Server{Handler: hub, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{*i.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})},
		ClientCAs:    pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = server.ServeTLS(l, "", "") })
	stop = sync.OnceFunc(func() {
		cancel()
		server.Close()
		running.Wait()
	})
	t.Cleanup(stop)
	return "https://" + l.Addr().String(), stop
}

// keyOf makes an API key.
func keyOf(t *testing.T, s *store.Store, probe bool) (id, secret string) {
	t.Helper()
	id, secret, key, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key.Probe = probe
	if _, err := s.PutKey(t.Context(), id, key, "test"); err != nil {
		t.Fatal(err)
	}
	return id, secret
}

// TestRelayedPoP runs a PoP and a DNS node that know etcd only through a relay, which goes and comes back.
func TestRelayedPoP(t *testing.T) {
	t.Parallel()
	_, client := startEtcd(t)
	s, i := store.New(client, storeRoot), newIssuer(t)
	at := ownAddr(t)
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for n, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}), 443)
	}
	pops["sin1"] = at
	for n, name := range topology.ExampleClusters {
		clusters[name] = fmt.Sprint("http://127.0.0.1:", n+1)
	}
	texts := map[string]string{}
	for name, at := range pops {
		texts[name] = at.String()
	}
	example := topology.Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
	put := map[topology.Ref]topology.Object{}
	for _, r := range example.Refs() {
		put[r] = example.Object(r)
	}
	if _, err := s.Apply(t.Context(), store.Change{Put: put}); err != nil {
		t.Fatal(err)
	}
	url, stop := i.startRelay(t, client, sockettest.Free(t).String())

	dir := t.TempDir()
	i.join(t, dir, "pop:sin1", url)
	if said := mustFail(t, "pop", "fra1", "--dir", dir); !strings.Contains(said, `certificate of another node: of "pop:sin1"`) {
		t.Errorf("another PoP's certificate: it says %s", said)
	}
	pop := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", dir)
	ns := t.TempDir()
	i.join(t, ns, "dns:ns1")
	d := startDNSIn(t, &running{Up: statedir.Up{PoPs: texts}}, ns, "--relay", "https://127.0.0.1:1", "--relay", url, "--probe=false")
	d.leads(t, "singapore", "sin1")

	post := postTo(t, dir, at)
	_, probeKey := keyOf(t, s, true)
	id, key := keyOf(t, s, false)
	eventually(t, "a new key", func() error { return post(key, false, 202) })
	eventually(t, "the probes' key", func() error { return post(probeKey, true, 202) })
	if _, err := s.DeleteKey(t.Context(), id, "test"); err != nil {
		t.Error(err)
	}
	eventually(t, "a revoked key", func() error { return post(key, false, 401) })
	eventually(t, "the nodes behind the relay", func() error {
		nodes, err := s.Nodes(t.Context())
		if err != nil || nodes["pop:sin1"].Kind != "pop" || nodes["dns:ns1"].Kind != "dns" || nodes["dns:ns1"].Hash == "" || nodes["dns:ns1"].Hash != nodes["pop:sin1"].Hash {
			return fmt.Errorf("got %v, %v", nodes, err)
		}
		return nil
	})

	stop() // the control plane is gone: intake and DNS go on, also from disk
	pop.says(t, "the relay cannot be used")
	if err := post(probeKey, true, 202); err != nil {
		t.Error(err)
	}
	pop.interrupt(t)
	pop = start(t, "PoP sin1 serves", "pop", "sin1", "--dir", dir)
	pop.says(t, "begins with the last good topology on disk")
	if err := post(probeKey, true, 202); err != nil {
		t.Error(err)
	}
	d.leads(t, "singapore", "sin1")
	_, key = keyOf(t, s, false)
	if _, err := s.PutOverride(t.Context(), "o", &topology.Override{
		Schema: 1, Kind: topology.Drain, PoP: "sin1", Reason: "r", Author: "a", Created: time.Now(), Expires: time.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	i.startRelay(t, client, strings.TrimPrefix(url, "https://"))
	eventually(t, "what was edited meanwhile", func() error { return post(key, false, 202) })
	d.leads(t, "singapore", "nrt1")
	d.interrupt(t)
	pop.interrupt(t)
}

// postTo returns a function that posts a payload with a key to a PoP, and checks the status.
func postTo(t *testing.T, dir string, at netip.AddrPort) func(key string, probe bool, want int) error {
	t.Helper()
	ca, err := devca.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: topology.ExampleService}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	return func(key string, probe bool, want int) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+at.String()+dataplane.Path, strings.NewReader(`{"hash":"h","sender":"s","amount":1}`))
		if err != nil {
			return err
		}
		request.Host = topology.ExampleService
		request.Header.Set("X-Api-Key", key)
		request.Header.Set("Content-Type", "application/json")
		if probe {
			request.Header.Set("X-Isochrone-Probe", "1")
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != want {
			return fmt.Errorf("got %s, want %d", response.Status, want)
		}
		return nil
	}
}
