package probe

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/devca"
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
	if o.Target != target.Target || o.Took <= 0 || o.OK != (o.Code == "") || o.Reason == "" {
		t.Errorf("got %+v", o)
	}
	return o
}

func TestPoP(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var status atomic.Int64
	status.Store(202)
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Certificate(h.ServerName, time.Now())
		}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "intake.test" || r.URL.Path != "/in" || r.Header.Get("X-API-Key") != "key" || r.Header.Get("X-Isochrone-Probe") != "1" {
				w.WriteHeader(400)
				return
			}
			w.WriteHeader(int(status.Load()))
		}),
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	go server.Serve(socket)
	defer server.Close()
	target := Target{
		Target: health.Target{Kind: health.PoP, Name: "sin1"}, Service: "intake.test", Path: "/in", Body: []byte(`{}`),
		Addrs: []netip.AddrPort{socket.LocalAddr().(*net.UDPAddr).AddrPort()},
	}
	if o := look(t, Config{Roots: ca.Pool(), ProbeKey: "key"}, target); !o.OK {
		t.Errorf("got %+v", o)
	}
	status.Store(503)
	if o := look(t, Config{Roots: ca.Pool(), ProbeKey: "key"}, target); o.OK || o.Code != health.Answered || !strings.Contains(o.Reason, "503") {
		t.Errorf("got %+v, want the status", o)
	}
	status.Store(202)
	if o := look(t, Config{ProbeKey: "key"}, target); o.OK || o.Code != health.Certificate || !strings.Contains(o.Reason, "certificate") {
		t.Errorf("got %+v for a certificate of an authority that is not trusted", o)
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
