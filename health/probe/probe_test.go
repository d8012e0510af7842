package probe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// look probes a target once.
func look(t *testing.T, c Config, target Target) health.Observation {
	t.Helper()
	p := New(c)
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := p.Probe(ctx, target)
	if o.Target != target.Target || o.Took <= 0 || o.OK != (o.Code == "" || o.Code == health.Expiring) || o.Reason == "" {
		t.Errorf("got %+v", o)
	}
	return o
}

// pop is a server of the intake, over HTTP/3 and HTTP/2 of one port, that knows one key.
type pop struct {
	at     netip.AddrPort
	status atomic.Int64
	key    atomic.Pointer[string]
}

// certificates are those of a server that was given none.
func certificates(ca *devca.CA) *tls.Config {
	return &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return ca.Certificate(h.ServerName, time.Now())
	}}
}

func startPoP(t *testing.T, config *tls.Config) *pop {
	t.Helper()
	p := new(pop)
	p.status.Store(202)
	key := "key"
	p.key.Store(&key)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "GET" && r.URL.Path == "/alive":
			w.WriteHeader(204)
		case r.Host != "intake.test" || r.URL.Path != "/in" || r.Header.Get("X-Isochrone-Probe") != "1":
			w.WriteHeader(400)
		case r.Header.Get("X-API-Key") != *p.key.Load():
			w.WriteHeader(401)
		default:
			w.WriteHeader(int(p.status.Load()))
		}
	})
	tcp, udp := sockettest.Both(t)
	p.at = tcp.Addr().(*net.TCPAddr).AddrPort()
	h3 := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(config), Handler: handler}
	h2 := &http.Server{TLSConfig: config.Clone(), Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	var running sync.WaitGroup
	running.Go(func() { _ = h3.Serve(udp) })
	running.Go(func() { _ = h2.ServeTLS(tcp, "", "") })
	t.Cleanup(func() {
		h3.Close()
		h2.Close()
		udp.Close()
		running.Wait()
	})
	return p
}

// target returns what probes PoPs at addresses.
func target(how topology.ServiceHealth, pops ...*pop) Target {
	t := Target{Target: health.Target{Kind: health.PoP, Name: "sin1"}, Service: "intake.test", Path: "/in", Body: []byte(`{}`), How: how}
	for _, p := range pops {
		t.Addrs = append(t.Addrs, p.at)
	}
	return t
}

func newCA(t *testing.T) *devca.CA {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// names returns the steps of an observation.
func names(o health.Observation) string {
	var all []string
	for i, took := range []time.Duration{o.Steps.Connect, o.Steps.Handshake, o.Steps.Answer} {
		if took < 0 || took > o.Took {
			return "a step took " + took.String()
		}
		if took > 0 {
			all = append(all, []string{"connect", "handshake", "answer"}[i])
		}
	}
	return strings.Join(all, " ")
}

// TestPoP probes a PoP of two addresses in each way, and has one of them fail.
func TestPoP(t *testing.T) {
	ca := newCA(t)
	a, b := startPoP(t, certificates(ca)), startPoP(t, certificates(ca))
	config := Config{Roots: ca.Pool(), Keys: Key("key")}
	for _, test := range []struct {
		how   topology.ServiceHealth
		steps string
	}{
		{topology.ServiceHealth{}, "handshake answer"},
		{topology.ServiceHealth{Probe: topology.ProbeIntake}, "handshake answer"},
		{topology.ServiceHealth{Probe: topology.ProbeHTTP2}, "connect handshake answer"},
	} {
		to := target(test.how, a, b)
		if o := look(t, config, to); !o.OK || names(o) != test.steps {
			t.Errorf("%v: got %+v", test.how, o)
		}
		b.status.Store(503)
		o := look(t, config, to)
		if o.OK || o.Code != health.Answered || !strings.Contains(o.Reason, "503") || !strings.Contains(o.Reason, b.at.String()) || names(o) != test.steps {
			t.Errorf("%v: got %+v, want the status and the address", test.how, o)
		}
		b.status.Store(202)
		o = look(t, Config{Keys: Key("key")}, to)
		if o.OK || o.Code != health.Certificate || !strings.Contains(o.Reason, "certificate") || names(o) != strings.TrimSuffix(test.steps, " answer") {
			t.Errorf("%v: got %+v for a certificate of an authority that is not trusted", test.how, o)
		}
		if strings.Count(o.Reason, "127.0.0.1") != 1 {
			t.Errorf("%v: the address is not there once: %s", test.how, o.Reason)
		}
	}
	https := topology.ServiceHealth{Probe: topology.ProbeHTTPS, Path: "/alive", Status: 204}
	if o := look(t, config, target(https, a, b)); !o.OK || names(o) != "connect handshake answer" {
		t.Errorf("got %+v", o)
	}
	https.Status = 200
	if o := look(t, config, target(https, a)); o.OK || o.Code != health.Answered || !strings.Contains(o.Reason, "204") {
		t.Errorf("got %+v, want the status", o)
	}
	if o := look(t, Config{}, target(https, a)); o.OK || o.Code != health.Certificate || names(o) != "connect handshake" {
		t.Errorf("got %+v for a certificate of an authority that is not trusted", o)
	}
	tcp := topology.ServiceHealth{Probe: topology.ProbeTCP}
	if o := look(t, config, target(tcp, a, b)); !o.OK || names(o) != "connect" {
		t.Errorf("got %+v", o)
	}
	gone := &pop{at: sockettest.Free(t)}
	if o := look(t, config, target(tcp, a, gone)); o.OK || o.Code != health.Refused || !strings.Contains(o.Reason, gone.at.String()) {
		t.Errorf("got %+v, want the address that refuses", o)
	}
}

// TestKeys has a PoP that does not know the newest key yet, and one that knows none.
func TestKeys(t *testing.T) {
	ca := newCA(t)
	p := startPoP(t, certificates(ca))
	keys := []string{"newer", "key"}
	config := Config{Roots: ca.Pool(), Keys: func() []string { return keys }}
	if o := look(t, config, target(topology.ServiceHealth{}, p)); !o.OK {
		t.Errorf("got %+v", o)
	}
	p.key.Store(&keys[0])
	if o := look(t, config, target(topology.ServiceHealth{}, p)); !o.OK {
		t.Errorf("got %+v with the newer key", o)
	}
	keys = []string{"other"}
	if o := look(t, config, target(topology.ServiceHealth{}, p)); o.OK || !strings.Contains(o.Reason, "401") || strings.Contains(o.Reason, "other") {
		t.Errorf("got %+v, want the status and no key", o)
	}
}

// TestExpiry has certificates that end soon, and that have ended.
func TestExpiry(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	certificate := func(ends time.Time) *tls.Config {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{"intake.test"}, NotBefore: ends.Add(-48 * time.Hour), NotAfter: ends, IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(parsed)
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
	soon, ended := startPoP(t, certificate(time.Now().Add(30*time.Hour))), startPoP(t, certificate(time.Now().Add(-time.Hour)))
	for _, kind := range []topology.ProbeKind{topology.ProbeIntake, topology.ProbeHTTP2, topology.ProbeHTTPS} {
		how := topology.ServiceHealth{Probe: kind, Path: "/alive", Status: 204, CertificateDays: 2}
		var text bytes.Buffer
		config := Config{Roots: pool, Keys: Key("key"), Log: slog.New(slog.NewTextHandler(&text, nil))}
		if o := look(t, config, target(how, soon)); !o.OK || !strings.Contains(o.Reason, "ends in 29h") || strings.Count(text.String(), "ends soon") != 1 {
			t.Errorf("%s: got %+v, and the log says %s", kind, o, &text)
		}
		how.CertificateDays = 1
		if o := look(t, config, target(how, soon)); !o.OK || strings.Contains(o.Reason, "ends") {
			t.Errorf("%s: got %+v for a certificate that is good for longer", kind, o)
		}
		if o := look(t, config, target(how, ended)); o.OK || o.Code != health.Certificate || !strings.Contains(o.Reason, "expired") {
			t.Errorf("%s: got %+v", kind, o)
		}
	}
}

// TestNoRoute has an address of a family that is not there: it says nothing of the PoP, unless there is no other.
func TestNoRoute(t *testing.T) {
	nowhere := netip.MustParseAddrPort("[2001:db8::1]:443")
	if routed(nowhere) {
		t.Skip("there is IPv6 here")
	}
	ca := newCA(t)
	p := startPoP(t, certificates(ca))
	config := Config{Roots: ca.Pool(), Keys: Key("key")}
	if o := look(t, config, target(topology.ServiceHealth{}, p, &pop{at: nowhere})); !o.OK {
		t.Errorf("got %+v", o)
	}
	if o := look(t, config, target(topology.ServiceHealth{}, &pop{at: nowhere})); o.OK || o.Code == health.Timeout {
		t.Errorf("got %+v", o)
	}
}

func TestCluster(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer server.Close()
	dead := httptest.NewServer(nil)
	dead.Close()
	target := Target{Target: health.Target{Kind: health.Cluster, Name: "ap"}, Endpoints: []string{dead.URL, server.URL + "/"}}
	if o := look(t, Config{}, target); !o.OK {
		t.Errorf("got %+v", o)
	}
	status.Store(500)
	if o := look(t, Config{}, target); o.OK || !strings.Contains(o.Reason, "refused") || !strings.Contains(o.Reason, "500") {
		t.Errorf("got %+v, want the reason of each endpoint", o)
	}
}

// TestSilence has a target that takes connections and never answers.
func TestSilence(t *testing.T) {
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	target := Target{
		Target: health.Target{Kind: health.PoP, Name: "sin1"}, Service: "intake.test",
		Addrs: []netip.AddrPort{silent.LocalAddr().(*net.UDPAddr).AddrPort()},
	}
	p := New(Config{})
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if o := p.Probe(ctx, target); o.OK || o.Code != health.Timeout {
		t.Errorf("got %+v", o)
	}
}
