package dns

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// certOf returns certificates of a CA for 127.0.0.1.
func certOf(ca *devca.CA) certFunc {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate("127.0.0.1", time.Now()) }
}

// secured is a server of the example world over TLS and HTTPS.
type secured struct {
	server     *Server
	client     *tls.Config
	tls, https netip.AddrPort // HTTP/3 has the port of HTTPS
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serveSecured(t *testing.T) secured {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	overTLS := listenTCP(t)
	overHTTPS, udp := sockettest.Both(t)
	s := secured{
		server: serve(t, example(), nil), client: &tls.Config{RootCAs: ca.Pool()},
		tls: peer(overTLS.Addr()), https: peer(overHTTPS.Addr()),
	}
	ctx, cancel := context.WithCancel(context.Background())
	works := s.server.streamWorks(ctx, Sockets{
		TLS: []net.Listener{overTLS}, HTTPS: []net.Listener{overHTTPS}, QUIC: []net.PacketConn{udp}, Cert: certOf(ca),
	})
	ended := make(chan error, len(works))
	for _, work := range works {
		go func() { ended <- work() }()
	}
	t.Cleanup(func() {
		cancel()
		for range works {
			if err := <-ended; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
		for s.server.Connections()[HTTPS].Open > 0 { // quic-go ends contexts a little later
			if runtime.Gosched(); t.Context().Err() != nil {
				break
			}
		}
	})
	return s
}

const frankfurt = "NOERROR aa 20 IN A 203.0.113.2 scope=6"

func TestOverTLS(t *testing.T) {
	s := serveSecured(t)
	config := s.client.Clone()
	config.NextProtos, config.ClientSessionCache = []string{"dot"}, tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		conn, err := tls.Dial("tcp", s.tls.String(), config)
		if err != nil {
			t.Fatal(err)
		}
		framed := dns.Conn{Conn: conn}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := framed.WriteMsg(query(serviceName, dns.TypeA, "198.51.100.0/24")); err != nil {
			t.Fatal(err)
		}
		answer, err := framed.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if got := summary(answer); got != frankfurt {
			t.Errorf("got %s, want %s", got, frankfurt)
		}
		state := conn.ConnectionState()
		if state.NegotiatedProtocol != "dot" || state.Version != tls.VersionTLS13 || state.DidResume != resumed {
			t.Errorf("got %q, version %x, resumed %v, want resumed %v", state.NegotiatedProtocol, state.Version, state.DidResume, resumed)
		}
		conn.CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want the end as TLS tells it", err)
		}
		conn.Close()
	}
	if got := s.server.Connections()[TLS].Total; got != 2 {
		t.Errorf("got %d connections counted, want 2", got)
	}
	for name, change := range map[string]func(*tls.Config){
		"a protocol that is not ours": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"a version of the past":       func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 },
	} {
		config := s.client.Clone()
		change(config)
		if conn, err := tls.Dial("tcp", s.tls.String(), config); err == nil {
			conn.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// httpClients returns a client for each version of HTTP.
func (s secured) httpClients(t *testing.T) map[string]*http.Client {
	clients := map[string]*http.Client{}
	for version, set := range map[string]func(*http.Protocols, bool){"HTTP/1.1": (*http.Protocols).SetHTTP1, "HTTP/2.0": (*http.Protocols).SetHTTP2} {
		transport := &http.Transport{TLSClientConfig: s.client.Clone(), Protocols: new(http.Protocols)}
		set(transport.Protocols, true)
		t.Cleanup(transport.CloseIdleConnections)
		clients[version] = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
	transport := &http3.Transport{TLSClientConfig: s.client.Clone()}
	t.Cleanup(func() { transport.Close() })
	clients["HTTP/3.0"] = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return clients
}

func TestOverHTTPS(t *testing.T) {
	s := serveSecured(t)
	packet := packOf(t, query(serviceName, dns.TypeA, "198.51.100.0/24"))
	for version, client := range s.httpClients(t) {
		get, _ := http.NewRequest(http.MethodGet, "https://"+s.https.String()+inURL(packet), nil)
		post, _ := http.NewRequest(http.MethodPost, "https://"+s.https.String()+dohPath, bytes.NewReader(packet))
		post.Header.Set("Content-Type", messageType)
		for _, request := range []*http.Request{get, post} {
			response, err := client.Do(request)
			if err != nil {
				t.Fatalf("%s: %v", version, err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || response.Proto != version {
				t.Fatalf("%s: %s %s: %s, %v", version, response.Proto, response.Status, body, err)
			}
			var answer dns.Msg
			if err := answer.Unpack(body); err != nil {
				t.Fatal(err)
			}
			if got := summary(&answer); got != frankfurt {
				t.Errorf("%s: got %s, want %s", version, got, frankfurt)
			}
			if got, want := response.Header.Get("Cache-Control"), "max-age=20"; got != want {
				t.Errorf("%s: got Cache-Control %q, want %q", version, got, want)
			}
			wantService := fmt.Sprintf(`h3=":%d"; ma=86400`, s.https.Port())
			if version == "HTTP/3.0" {
				wantService = ""
			}
			if got := response.Header.Get("Alt-Svc"); got != wantService {
				t.Errorf("%s: got Alt-Svc %q, want %q", version, got, wantService)
			}
		}
		large, _ := http.NewRequest(http.MethodPost, "https://"+s.https.String()+dohPath, bytes.NewReader(make([]byte, 70_000)))
		large.Header.Set("Content-Type", messageType)
		wide, _ := http.NewRequest(http.MethodGet, "https://"+s.https.String()+inURL(packet), nil)
		wide.Header.Set("X-Wide", strings.Repeat("x", 2*maxHeaderOctets))
		for request, want := range map[*http.Request]int{large: http.StatusRequestEntityTooLarge, wide: http.StatusRequestHeaderFieldsTooLarge} {
			response, err := client.Do(request)
			if err != nil {
				t.Logf("%s: %v", version, err)
				continue
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s: got %s, want %d", version, response.Status, want)
			}
		}
	}
	if got := s.server.Connections()[HTTPS].Total; got < 3 {
		t.Errorf("got %d connections counted, want one for each version", got)
	}
}

func TestHTTP3IsAnnouncedWhileItIsServed(t *testing.T) {
	var served addresses
	at, other := netip.MustParseAddrPort("192.0.2.53:443"), netip.MustParseAddrPort("192.0.2.54:443")
	handler := announceHTTP3(http.NotFoundHandler(), &served, at)
	announced := func() string {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, dohPath, nil))
		return w.Header().Get("Alt-Svc")
	}
	var got [3]string
	served.add(other)
	got[0] = announced()
	served.add(at)
	got[1] = announced()
	served.remove(at)
	got[2] = announced()
	if want := [3]string{"", `h3=":443"; ma=86400`, ""}; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHTTPSConnectionsAreEvicted takes the place of idle connections of HTTP.
func TestHTTPSConnectionsAreEvicted(t *testing.T) {
	s := serveSecured(t)
	config := s.client.Clone()
	config.NextProtos = []string{"h2"}
	tcp, err := tls.Dial("tcp", s.https.String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	udp, err := quic.DialAddr(ctx, s.https.String(), http3.ConfigureTLSConfig(s.client.Clone()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.CloseWithError(0, "")
	if _, err := udp.AcceptUniStream(ctx); err != nil { // the server's control stream: so the server knows how to close it
		t.Fatal(err)
	}
	open := &s.server.connections
	var places []*connection
	defer func() {
		for _, c := range places {
			c.release()
		}
	}()
	for i := 0; open.stats()[HTTPS].Evicted < 2; i++ {
		if i > mostConnections {
			t.Fatal("nothing was evicted")
		}
		c := open.admit(netip.AddrFrom4([4]byte{198, 18, byte(i / mostOfPrefix), 1}), TCP, func() {})
		c.begin()
		places = append(places, c)
	}
	tcp.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, tcp); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection of TCP is open")
	}
	select {
	case <-udp.Context().Done():
		var closed *quic.ApplicationError
		if err := context.Cause(udp.Context()); !errors.As(err, &closed) || closed.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
			t.Errorf("got %v, want that the load is excessive", err)
		}
	case <-ctx.Done():
		t.Error("the connection of QUIC is open")
	}
}

// retries counts the Retry packets of QUIC version 1 that come (RFC 9000 section 17.2.5).
type retries struct {
	net.PacketConn
	count atomic.Int64
}

func (r *retries) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := r.PacketConn.ReadFrom(b)
	if n > 0 && b[0]&0xF0 == 0xF0 {
		r.count.Add(1)
	}
	return n, from, err
}

// TestAddressesAreProvedUnderPressure pretends that many handshakes are under way.
func TestAddressesAreProvedUnderPressure(t *testing.T) {
	s := serveSecured(t)
	handshakes := &s.server.connections.handshakes
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	for _, test := range []struct {
		pressure int64
		want     bool
	}{{0, false}, {retryHandshakes - 1, false}, {retryHandshakes, true}} {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		sniffer := &retries{PacketConn: udp}
		transport := quic.Transport{Conn: sniffer}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		handshakes.Add(test.pressure)
		conn, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(s.https), http3.ConfigureTLSConfig(s.client.Clone()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.AcceptUniStream(ctx); err != nil { // the server's control stream, after its handshake
			t.Fatal(err)
		}
		if got := handshakes.Add(-test.pressure); got != 0 {
			t.Errorf("got %d handshakes under way after one that is done", got)
		}
		conn.CloseWithError(0, "")
		transport.Close()
		udp.Close()
		cancel()
		if got := sniffer.count.Load(); got > 0 != test.want { // one for each packet of the ClientHello
			t.Errorf("with %d handshakes under way: got %d Retry packets, want some: %v", test.pressure, got, test.want)
		}
	}
}

func TestHTTPSListenerFails(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l := listenTCP(t)
	l.Close()
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err := s.serveHTTPS(context.Background(), l, certOf(ca)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

// TestKdigSecured asks by a program that is not ours.
func TestKdigSecured(t *testing.T) {
	kdig, err := exec.LookPath("kdig")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("kdig is missing: install knot-dnsutils")
		}
		t.Skip("kdig is missing: install knot-dnsutils")
	}
	s := serveSecured(t)
	for _, test := range []struct {
		at        netip.AddrPort
		arguments string
	}{
		{s.tls, "+tls"}, {s.tls, "+tls +keepopen " + serviceName}, {s.https, "+https"}, {s.https, "+https +https-get"},
	} {
		arguments := append([]string{"@" + test.at.Addr().String(), "-p", fmt.Sprint(test.at.Port()), "+short", "+subnet=198.51.100.0/24"},
			append(strings.Fields(test.arguments), serviceName)...)
		out, err := exec.Command(kdig, arguments...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "203.0.113.2") {
			t.Errorf("kdig %s: %v: got %s", arguments, err, out)
		}
	}
}
