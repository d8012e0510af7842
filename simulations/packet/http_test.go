package packet

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/devca"
)

// A request over TLS 1.3 takes three round trips on a new connection and one on an open one, by HTTP/1.1 and by HTTP/2. A long one takes more, as the
// window has it.
func TestHTTPOverTCP(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		inWorld(t, Config{Way: way(Way{Delay: rtt / 2})}, func(n *Network, a, b netip.Addr) error {
			ca, err := devca.New(time.Now())
			if err != nil {
				return err
			}
			server := &http.Server{
				ErrorLog: log.New(io.Discard, "", 0),
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got, _ := io.Copy(io.Discard, r.Body)
					w.Header().Set("X-Got", r.Proto)
					if got != r.ContentLength {
						w.WriteHeader(http.StatusBadRequest)
					}
				}),
				TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate("b.test", time.Now()) }},
			}
			served := make(chan error, 1)
			go func() { served <- server.ServeTLS(n.Listen(netip.AddrPortFrom(b, 443)), "", "") }()
			transport := &http.Transport{
				Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "b.test", MinVersion: tls.VersionTLS13}, DialContext: n.Dialer(a),
			}
			transport.Protocols.SetHTTP1(version == "HTTP/1.1")
			transport.Protocols.SetHTTP2(version == "HTTP/2.0")
			client := &http.Client{Transport: transport}
			for _, post := range []struct {
				octets int
				want   time.Duration
			}{{100, 3 * rtt}, {100, rtt}, {60_000, 3 * rtt}} { // 10 segments, 20 more, and the rest
				start := time.Now()
				answer, err := client.Post("https://"+netip.AddrPortFrom(b, 443).String(), "text/plain", strings.NewReader(strings.Repeat("x", post.octets)))
				if err != nil {
					return err
				}
				answer.Body.Close()
				if took := time.Since(start); took != post.want || answer.StatusCode != http.StatusOK || answer.Header.Get("X-Got") != version {
					t.Errorf("%s, %d octets: took %v, want %v; got %d by %s", version, post.octets, took, post.want, answer.StatusCode, answer.Header.Get("X-Got"))
				}
			}
			transport.CloseIdleConnections()
			server.Close()
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
}
