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

// watch runs the prober on targets until the test ends and returns its observations.
func watch(t *testing.T, c Config) <-chan health.Observation {
	t.Helper()
	seen := make(chan health.Observation, 10_000)
	c.Report, c.Interval = func(o health.Observation) { seen <- o }, 10*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	})
	return seen
}

// until returns the first observation that is as wanted.
func until(t *testing.T, seen <-chan health.Observation, ok bool) health.Observation {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case o := <-seen:
			if o.OK == ok {
				return o
			}
		case <-timeout:
			t.Fatalf("no observation with OK %v", ok)
		}
	}
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
	seen := watch(t, Config{Targets: func() []Target { return []Target{target} }, Roots: ca.Pool(), ProbeKey: "key"})
	if o := until(t, seen, true); o.Target != target.Target || o.Took <= 0 {
		t.Errorf("got %+v", o)
	}
	status.Store(503)
	if o := until(t, seen, false); !strings.Contains(o.Reason, "503") {
		t.Errorf("got reason %q, want the status", o.Reason)
	}
	status.Store(202)
	until(t, seen, true)
	strangers := watch(t, Config{Targets: func() []Target { return []Target{target} }, ProbeKey: "key"})
	if o := until(t, strangers, false); !strings.Contains(o.Reason, "certificate") {
		t.Errorf("got reason %q for a certificate of an authority that is not trusted", o.Reason)
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
	seen := watch(t, Config{Targets: func() []Target { return []Target{target} }})
	until(t, seen, true)
	status.Store(500)
	if o := until(t, seen, false); !strings.Contains(o.Reason, "refused") || !strings.Contains(o.Reason, "500") {
		t.Errorf("got reason %q, want that of each endpoint", o.Reason)
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
	seen := watch(t, Config{Targets: func() []Target { return []Target{target} }, Timeout: 50 * time.Millisecond})
	if o := until(t, seen, false); o.Reason != "no answer within 50ms" {
		t.Errorf("got reason %q", o.Reason)
	}
}

// TestTargetsComeAndGo changes what is probed: nothing is observed of what has gone.
func TestTargetsComeAndGo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	var name atomic.Pointer[string]
	first, second := "first", "second"
	name.Store(&first)
	seen := watch(t, Config{Targets: func() []Target {
		return []Target{{Target: health.Target{Kind: health.Cluster, Name: *name.Load()}, Endpoints: []string{server.URL}}}
	}})
	for until(t, seen, true).Target.Name != first {
	}
	name.Store(&second)
	for until(t, seen, true).Target.Name != second {
	}
	for len(seen) > 0 {
		<-seen
	}
	for range 5 {
		if got := until(t, seen, true).Target.Name; got != second {
			t.Errorf("%s is still probed", got)
		}
	}
}
