package dns

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/isochrone/isochrone/internal/devca"
)

// inHTTPS runs a test in virtual time with a server over HTTPS on a pipe and on a simulated network. The server of the test
// answers nothing: the tests are of requests that are not whole.
func inHTTPS(t *testing.T, test func(t *testing.T, p *pipes, dial func() *quic.Conn, client *tls.Config)) {
	ca, err := devca.New(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM())
	synctest.Test(t, func(t *testing.T) {
		n := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
		settings := simnet.NodeBiDiLinkSettings{Latency: time.Millisecond}
		at := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 53), Port: 443}
		server := n.NewEndpoint(at, settings)
		near := n.NewEndpoint(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4242}, settings)
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		s := New(Config{Log: slog.New(slog.DiscardHandler)})
		p := newPipes()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 2)
		go func() { ended <- s.serveHTTPS(ctx, p, certOf(ca)) }()
		go func() { ended <- s.serveHTTP3(ctx, server, certOf(ca)) }()
		transport := &quic.Transport{Conn: near}
		client := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
		defer func() {
			transport.Close()
			near.Close()
			cancel()
			for range cap(ended) {
				if err := <-ended; err != nil {
					t.Errorf("serve: %v", err)
				}
			}
		}()
		test(t, p, func() *quic.Conn {
			conn, err := transport.Dial(t.Context(), at, http3.ConfigureTLSConfig(client.Clone()), &quic.Config{KeepAlivePeriod: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}, client)
	})
}

// TestSlowRequests sends half of something over HTTP/1.1, and waits.
func TestSlowRequests(t *testing.T) {
	const header = "POST " + dohPath + " HTTP/1.1\r\nHost: a.test\r\nContent-Type: " + messageType + "\r\n"
	for _, test := range []struct {
		name, sent string
		want       time.Duration
	}{
		{"nothing", "", handshakeTimeout},
		{"half a header", header, handshakeTimeout},
		{"half a body", header + "Content-Length: 100\r\n\r\n0123", messageTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			inHTTPS(t, func(t *testing.T, p *pipes, _ func() *quic.Conn, client *tls.Config) {
				conn := tls.Client(p.dial(clientAddr), client)
				defer conn.Close()
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(conn, test.sent); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
					if response.StatusCode < 400 {
						t.Errorf("got %s", response.Status)
					}
					response.Body.Close()
				}
				io.Copy(io.Discard, conn)
				if got := time.Since(start); got < test.want || got > test.want+time.Second {
					t.Errorf("ended after %v, want %v", got, test.want)
				}
			})
		})
	}
}

// TestSlowRequestOverHTTP3 sends half a body.
func TestSlowRequestOverHTTP3(t *testing.T) {
	inHTTPS(t, func(t *testing.T, _ *pipes, dial func() *quic.Conn, _ *tls.Config) {
		transport := &http3.Transport{}
		body, half := io.Pipe()
		defer half.Close()
		request, _ := http.NewRequest(http.MethodPost, "https://127.0.0.1"+dohPath, io.MultiReader(strings.NewReader("0123"), body))
		request.Header.Set("Content-Type", messageType)
		start := time.Now()
		response, err := transport.NewClientConn(dial()).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := time.Since(start).Round(time.Second); got != messageTimeout || response.StatusCode != http.StatusBadRequest {
			t.Errorf("got %s after %v, want 400 after %v", response.Status, got, messageTimeout)
		}
	})
}

// TestIdleOverHTTP3 has a client that keeps its connection alive and asks nothing.
func TestIdleOverHTTP3(t *testing.T) {
	inHTTPS(t, func(t *testing.T, _ *pipes, dial func() *quic.Conn, _ *tls.Config) {
		conn := dial()
		start := time.Now()
		<-conn.Context().Done()
		if got := time.Since(start).Round(time.Second); got != httpIdleTimeout {
			t.Errorf("closed after %v, want %v", got, httpIdleTimeout)
		}
	})
}
