package intakeclient

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "svc.test"

// server answers posts over HTTP/3 and HTTP/2 of one port, with the body that came.
type server struct {
	at    netip.AddrPort
	posts atomic.Int64
	abort atomic.Bool // answer nothing, and break the stream
	close func()
}

func startServer(t *testing.T, ca *devca.CA) *server {
	t.Helper()
	return startServerAt(t, ca, sockettest.Free(t).String())
}

func startServerAt(t *testing.T, ca *devca.CA, at string) *server {
	t.Helper()
	certificate, err := ca.Certificate(host, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{at: tcp.Addr().(*net.TCPAddr).AddrPort()}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.posts.Add(1)
		if s.abort.Load() {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		_, _ = w.Write(body)
	})
	config := &tls.Config{Certificates: []tls.Certificate{*certificate}}
	h3 := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(config)}
	h2 := &http.Server{Handler: handler, TLSConfig: config}
	var running sync.WaitGroup
	running.Go(func() { _ = h3.Serve(udp) })
	running.Go(func() { _ = h2.ServeTLS(tcp, "", "") })
	s.close = sync.OnceFunc(func() {
		h3.Close()
		h2.Close()
		udp.Close()
		running.Wait()
	})
	t.Cleanup(s.close)
	return s
}

func newCA(t *testing.T) *devca.CA {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	client := New(c)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

var post = &Request{Service: host, Path: "/x", Header: http.Header{"X-Api-Key": {"k"}}, Body: []byte("payload\n")}

func TestPost(t *testing.T) {
	ca := newCA(t)
	for _, test := range []struct {
		protocol string
		tcp      bool
	}{{"h3", false}, {"h2", true}} {
		t.Run(test.protocol, func(t *testing.T) {
			s := startServer(t, ca)
			c := newClient(t, Config{Roots: ca.Pool(), TCP: test.tcp})
			for i := range 3 {
				got, err := c.Post(t.Context(), []Endpoint{{Target: "sin1." + host, Addr: s.at}}, post)
				if err != nil {
					t.Fatal(err)
				}
				if got.Status != 200 || string(got.Body) != "payload\n" || got.Header.Get("X-Host") != host || got.Protocol != test.protocol ||
					got.Endpoint.Addr != s.at || got.Reused != (i > 0) || got.Total < got.Connect {
					t.Errorf("post %d: got %+v", i, got)
				}
			}
			// The server goes and comes back: a dead connection costs one post at most.
			at := s.at.String()
			s.close()
			startServerAt(t, ca, at)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			for {
				got, err := c.Post(ctx, []Endpoint{{Target: "sin1." + host, Addr: s.at}}, post)
				if err == nil {
					if got.Reused {
						t.Error("the dead connection was used")
					}
					break
				}
				if ctx.Err() != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestPostGoesOnWhereNothingWasSent(t *testing.T) {
	ca := newCA(t)
	gone, well := startServer(t, ca), startServer(t, ca)
	gone.close()
	stranger := startServer(t, newCA(t)) // has a certificate of another CA
	c := newClient(t, Config{Roots: ca.Pool(), HandshakeTimeout: 200 * time.Millisecond})
	endpoints := []Endpoint{{Target: "gone", Addr: gone.at}, {Target: "stranger", Addr: stranger.at}, {Target: "well", Addr: well.at}}
	got, err := c.Post(t.Context(), endpoints, post)
	if err != nil || got.Endpoint.Target != "well" || stranger.posts.Load() != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = c.Post(t.Context(), endpoints[:2], post)
	if err == nil || !strings.Contains(err.Error(), "gone (") || !strings.Contains(err.Error(), "stranger (") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Post(t.Context(), nil, post); err != ErrNoAddress {
		t.Errorf("without endpoints: got %v", err)
	}
}

// What was sent may have been accepted, so it is sent again only if the server can tell that it is the same.
func TestPostIsRepeatedOnlyWithIdempotencyKey(t *testing.T) {
	ca := newCA(t)
	for _, tcp := range []bool{false, true} {
		failing, well := startServer(t, ca), startServer(t, ca)
		failing.abort.Store(true)
		c := newClient(t, Config{Roots: ca.Pool(), TCP: tcp})
		endpoints := []Endpoint{{Target: "failing", Addr: failing.at}, {Target: "well", Addr: well.at}}
		if got, err := c.Post(t.Context(), endpoints, post); err == nil || well.posts.Load() != 0 {
			t.Errorf("tcp %v: got %+v, %v", tcp, got, err)
		}
		repeatable := *post
		repeatable.Header = http.Header{"Idempotency-Key": {"1"}}
		if got, err := c.Post(t.Context(), endpoints, &repeatable); err != nil || got.Endpoint.Target != "well" {
			t.Errorf("tcp %v, with a key: got %+v, %v", tcp, got, err)
		}
	}
}

func TestPostsAtTheSameTime(t *testing.T) {
	ca := newCA(t)
	s := startServer(t, ca)
	c := newClient(t, Config{Roots: ca.Pool()})
	var running sync.WaitGroup
	for range 20 {
		running.Go(func() {
			if _, err := c.Post(t.Context(), []Endpoint{{Target: "x", Addr: s.at}}, post); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if n := len(c.conns); n != 1 {
		t.Errorf("%d connections are left", n)
	}
}
