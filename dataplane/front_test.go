package dataplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

func TestClientLimits(t *testing.T) {
	c := newClientLimits(Limits{Connections: 20, ConnectionsPerPrefix: 5, HandshakesPerPrefix: 10, Handshakes: 50, RetryConnections: 15})
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	var ends []func()
	for range 5 {
		end, err := c.begin(one, false, false)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if _, err := c.begin(netip.MustParseAddr("192.0.2.200"), false, false); !errors.Is(err, errTooManyOf) {
		t.Errorf("a sixth connection of a prefix: %v", err)
	}
	for i := range 15 {
		from := netip.AddrFrom4([4]byte{10, 0, byte(i), 1})
		tcp := i < 10
		end, err := c.begin(from, false, tcp)
		if err != nil {
			t.Fatal(i, err)
		}
		ends = append(ends, end)
	}
	if _, err := c.begin(two, false, false); !errors.Is(err, errTooMany) {
		t.Errorf("a connection too many: %v", err)
	}
	if !c.suspicious(two) {
		t.Error("nobody must prove an address though there are many connections")
	}
	for _, end := range ends {
		end()
		end() // is counted once
	}
	if c.connections() != 0 || c.tcp != 0 || len(c.prefix) != 0 {
		t.Errorf("%d connections are left, %d over TCP, of %v", c.connections(), c.tcp, c.prefix)
	}
	for range 21 {
		c.suspicious(one) // forged
	}
	if !c.suspicious(one) || c.suspicious(two) {
		t.Error("a flood is not told from others")
	}
	end, err := c.begin(one, true, false)
	if err != nil {
		t.Fatalf("forged handshakes have a proved one refused: %v", err)
	}
	end()
	for range 20 {
		if end, err = c.begin(one, true, true); err == nil {
			end()
		}
	}
	if !errors.Is(err, errTooFast) {
		t.Errorf("the 21st proved handshake within two seconds: %v", err)
	}
}

// TestManyPrefixes floods the table of prefixes from everywhere: those who come once are let in.
func TestManyPrefixes(t *testing.T) {
	table := newRateTable()
	refused := 0
	for i := range 100_000 {
		prefix := clientPrefix(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}))
		if !table.take(prefix, unproved, time.Duration(i)*time.Microsecond, 100) {
			refused++
		}
	}
	if refused > 10 {
		t.Errorf("%d of 100000 prefixes were refused", refused)
	}
}

// TestCutOffIsCharged has a client come back after its connections were cut off: it must wait, and others need not.
func TestCutOffIsCharged(t *testing.T) {
	limits := newClientLimits(Limits{HandshakesPerPrefix: 10})
	from, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	c := &connection{began: time.Now(), close: func(string) {}, charge: func() { limits.charge(from) }}
	for range 2 {
		for range 3 * maxCancelled { // over the limit of a second, even if a new one begins in between
			c.begin()
			c.done(true)
		}
		c.second.Store(-1)
	}
	if _, err := limits.begin(from, true, true); !errors.Is(err, errTooFast) {
		t.Errorf("after two cuts: %v", err)
	}
	if _, err := limits.begin(other, true, true); err != nil {
		t.Errorf("another prefix: %v", err)
	}
}

func TestConnectionIsClosed(t *testing.T) {
	var closed atomic.Int32
	c := &connection{began: time.Now(), close: func(string) { closed.Add(1) }}
	for range maxCancelled {
		c.begin()
		c.done(true)
	}
	if closed.Load() > 0 {
		t.Error("closed too soon")
	}
	c.begin()
	if c.done(true); closed.Load() == 0 && c.given.Load() > 1 { // else a new second has begun
		t.Error("a storm of cancelled requests does not close the connection")
	}
	if why := c.stale(); why != "" {
		t.Error(why)
	}
	c.began = c.began.Add(-idleTimeout - time.Second)
	if c.stale() == "" {
		t.Error("an idle connection stays")
	}
	c.active.Add(1)
	if why := c.stale(); why != "" {
		t.Error(why)
	}
	c.began = c.began.Add(-stuckTimeout)
	if c.stale() == "" {
		t.Error("a stuck connection stays")
	}
}

// TestTickets resumes sessions between two servers that share keys, over a change of keys.
func TestTickets(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var keys atomic.Pointer[[][32]byte]
	old, fresh := [32]byte{1}, [32]byte{2}
	newServer := func() *tls.Config {
		return withTickets(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Certificate("localhost", time.Now())
		}}, func() [][32]byte { return *keys.Load() })
	}
	servers := []*tls.Config{newServer(), newServer()}
	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for i, test := range []struct {
		keys    [][32]byte
		resumed bool
	}{
		{[][32]byte{old}, false}, {[][32]byte{old}, true}, {[][32]byte{fresh, old}, true}, {[][32]byte{fresh}, true},
		{[][32]byte{{3}}, false}, {nil, false}, {nil, false},
	} {
		keys.Store(&test.keys)
		ours, theirs := net.Pipe()
		go func() {
			c := tls.Server(theirs, servers[i%2])
			io.WriteString(c, "x")
			c.Close()
		}()
		c := tls.Client(ours, client)
		if _, err := io.ReadAll(c); err != nil { // the ticket comes before the text
			t.Fatal(i, err)
		}
		if got := c.ConnectionState().DidResume; got != test.resumed {
			t.Errorf("connection %d: resumed is %v", i, got)
		}
		c.Close()
	}
	config := servers[0]
	first, _ := config.GetConfigForClient(nil)
	if second, _ := config.GetConfigForClient(nil); first != second {
		t.Error("a configuration is made for each handshake")
	}
}

// slowHandler answers when it is told to.
type slowHandler struct{ arrived, answer chan struct{} }

func (h slowHandler) Answer(_ *exchange.Request, a *exchange.Answer) {
	h.arrived <- struct{}{}
	<-h.answer
	a.Status = http.StatusAccepted
}

// TestFrontDrains wants requests to wait for a handler, and those in flight at the end to be answered while nobody new is let in.
func TestFrontDrains(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := sockettest.Both(t)
	f := NewFront(FrontConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- f.Serve(ctx, Listeners{UDP: udp, TCP: tcp, TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Certificate("127.0.0.1", time.Now())
		}}})
	}()
	transports := frontClients(ca.Pool())
	answered := make(chan error, len(transports))
	for _, transport := range transports {
		go func() { answered <- post(transport, "https://"+tcp.Addr().String()) }()
	}
	h := slowHandler{make(chan struct{}), make(chan struct{})}
	f.Handle(h)
	for range transports {
		<-h.arrived
	}
	cancel()
	<-f.Draining()
	early, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	_, err = quic.DialAddr(early, udp.LocalAddr().String(), &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"h3"}}, nil)
	if refused := (*quic.TransportError)(nil); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("a new QUIC connection at the end: %v", err)
	}
	select {
	case <-f.Quiet():
		t.Error("it is quiet though requests are in flight")
	default:
	}
	close(h.answer)
	for range transports {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	for _, transport := range transports {
		if h3, ok := transport.(*http3.Transport); ok {
			h3.Close()
		} else {
			transport.(*http.Transport).CloseIdleConnections()
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if quic, tcp, _ := f.Connections(); quic != 0 || tcp != 0 {
		t.Errorf("%d and %d connections are left", quic, tcp)
	}
}

// frontClients are clients of HTTP/3, HTTP/2 and HTTP/1.1.
func frontClients(roots *x509.CertPool) []http.RoundTripper {
	config, protocols := &tls.Config{RootCAs: roots}, new(http.Protocols)
	protocols.SetHTTP2(true)
	return []http.RoundTripper{
		&http3.Transport{TLSClientConfig: config.Clone()}, &http.Transport{TLSClientConfig: config.Clone(), Protocols: protocols},
		&http.Transport{TLSClientConfig: config.Clone()},
	}
}

func post(transport http.RoundTripper, url string) error {
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusAccepted {
		return errors.New(response.Status)
	}
	return response.Body.Close()
}
