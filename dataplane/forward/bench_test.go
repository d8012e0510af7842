package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// endless is a spool in memory that always has another envelope, for the cost of forwarding alone.
type endless struct {
	mu        sync.Mutex
	left      int
	delivered int
	total     int
	envelope  *spool.Envelope
	done      chan struct{}
}

func (s *endless) Next(ctx context.Context) (*spool.Item, error) {
	items, err := s.Take(ctx, 1, nil)
	if err != nil {
		return nil, err
	}
	return items[0], nil
}

func (s *endless) Take(ctx context.Context, limit int, dst []*spool.Item) ([]*spool.Item, error) {
	s.mu.Lock()
	n := min(limit, s.left)
	s.left -= n
	s.mu.Unlock()
	if n == 0 {
		<-ctx.Done()
		return dst, ctx.Err()
	}
	for range n {
		dst = append(dst, &spool.Item{Envelope: s.envelope})
	}
	return dst, nil
}

func (s *endless) Delivered(*spool.Item, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.delivered++; s.delivered == s.total {
		close(s.done)
	}
}

func (s *endless) Return(*spool.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left++
}

func (s *endless) Bury(*spool.Item, string) error { return nil }

func payload() *spool.Envelope {
	body := bytes.Repeat([]byte("x"), 1024)
	return &spool.Envelope{
		ID: "sin1.abcdefghijklmnopqrstuvwxyz", Service: service, ContentType: "application/json", Received: time.Now(),
		SHA256: sha256.Sum256(body), Body: body, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

// rawServer answers pipelined requests as cheaply as can be, so that what is measured is the client.
func rawServer(tb testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	tb.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				buf, at := make([]byte, 256<<10), 0
				var out []byte
				for {
					n, err := c.Read(buf[at:])
					if err != nil {
						return
					}
					at += n
					begin := 0
					out = out[:0]
					for {
						i := bytes.Index(buf[begin:at], []byte("\r\n\r\n"))
						if i < 0 || at < begin+i+4+1024 {
							break
						}
						begin += i + 4 + 1024
						out = append(out, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"...)
					}
					at = copy(buf, buf[begin:at])
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkForward sends 1 KiB envelopes, by this package and by net/http with 32 at a time, to the same servers. The figures are CPU of
// client and server together.
func BenchmarkForward(b *testing.B) {
	drain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(202)
	})
	secure := httptest.NewUnstartedServer(drain)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(drain)
	defer plain.Close()
	for _, server := range []struct{ name, url string }{{"raw", rawServer(b)}, {"go", plain.URL}, {"h2", secure.URL}} {
		b.Run(server.name+"/ours", func(b *testing.B) {
			s := &endless{left: b.N, total: b.N, envelope: payload(), done: make(chan struct{})}
			snap := snapshotOf(map[string]string{"ap": server.url}, nil)
			f := New(Config{
				Name: "sin1", Snapshot: func() *topology.Snapshot { return snap }, Verdicts: func() health.Verdicts { return nil }, Model: rtt.Default(),
				Spool: s, ClusterToken: func(string) string { return "token" }, Roots: rootsOf(secure),
			})
			ctx, cancel := context.WithCancel(b.Context())
			b.ReportAllocs()
			before := cpu()
			var running sync.WaitGroup
			running.Go(func() { f.Run(ctx) })
			<-s.done
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			cancel()
			running.Wait()
		})
		b.Run(server.name+"/net-http", func(b *testing.B) {
			e := payload()
			transport := secure.Client().Transport.(*http.Transport).Clone()
			transport.MaxIdleConnsPerHost = 32
			defer transport.CloseIdleConnections()
			b.ReportAllocs()
			before := cpu()
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			var workers sync.WaitGroup
			for range 32 {
				workers.Go(func() {
					for range work {
						r, _ := http.NewRequestWithContext(b.Context(), "POST", server.url+envelopePath, bytes.NewReader(e.Body))
						r.Header = http.Header{
							"Content-Type": {e.ContentType}, "X-Request-Id": {e.ID}, "X-Request-Hash": {hex.EncodeToString(e.SHA256[:])},
							"X-Edge-Validated": {"1"}, "Authorization": {"Bearer token"}, "User-Agent": {"isochrone"},
							"X-Isochrone-Window": {fmt.Sprint(e.Window)}, "Traceparent": {e.Traceparent},
						}
						answer, err := transport.RoundTrip(r)
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, answer.Body)
						answer.Body.Close()
					}
				})
			}
			workers.Wait()
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

func rootsOf(s *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}
