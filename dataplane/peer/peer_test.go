package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/sockets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const service = "intake.example"

// pop is a PoP's transports, with what answers other PoPs.
type pop struct {
	*Server
	at     netip.AddrPort
	roots  *devca.CA
	secret atomic.Pointer[[][]byte]
	stop   func()
}

// intake stands for what is behind the calls.
type intake struct{}

func (intake) Answer(r *exchange.Request, a *exchange.Answer) {
	a.Status, a.Body = http.StatusTeapot, append(a.Body, r.Path...)
}

// startPoP starts a PoP named fra1, which knows the calls echo, fail and panic, and others.
func startPoP(t *testing.T, others func(*Server)) *pop {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Certificate(service, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tcp, udps, err := new(sockets.Pool).Both(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	p := &pop{at: netip.MustParseAddrPort(tcp.Addr().String()), roots: ca}
	p.secret.Store(&[][]byte{secret})
	p.Server = NewServer(ServerConfig{Name: "fra1", Secrets: func() [][]byte { return *p.secret.Load() }, Metrics: NewMetrics("fra1")})
	Handle(p.Server, "echo", func(_ context.Context, from, ask string) (string, error) { return from + " says " + ask, nil })
	Handle(p.Server, "fail", func(_ context.Context, _ string, status int) (string, error) {
		if status == 0 {
			return "", errors.New("not to be told")
		}
		return "", &Error{status, "to be told"}
	})
	Handle(p.Server, "panic", func(context.Context, string, string) (string, error) { panic("a fault") })
	if others != nil {
		others(p.Server)
	}
	front := dataplane.NewFront(dataplane.FrontConfig{Name: "fra1", Log: slog.New(slog.DiscardHandler), DrainTimeout: time.Second})
	front.Handle(p.Before(intake{}))
	listen := dataplane.Listeners{UDP: udps[0], TCP: tcp, TLS: &tls.Config{Certificates: []tls.Certificate{*certificate}}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := front.Serve(ctx, listen); err != nil {
			t.Error(err)
		}
	})
	p.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(p.stop)
	return p
}

// client returns a client of the PoP, named sin1.
func (p *pop) client(t *testing.T, change func(*ClientConfig)) *Client {
	t.Helper()
	config := ClientConfig{
		Name: "sin1", Secrets: func() [][]byte { return [][]byte{secret} }, Metrics: NewMetrics("sin1"),
		Find: func(name string) (Address, bool) {
			return Address{Service: service, Addrs: []netip.AddrPort{p.at}}, name == "fra1" || name == "sin1"
		},
	}
	config.Roots = pool(p.roots)
	if change != nil {
		change(&config)
	}
	c := NewClient(config)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	p := startPoP(t, nil)
	c := p.client(t, nil)
	var calling sync.WaitGroup
	for range 20 {
		calling.Go(func() {
			var got string
			if err := c.Call(within(t), "fra1", "echo", "hello", &got); err != nil || got != "sin1 says hello" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	calling.Wait()
	for _, test := range []struct {
		name, pop, call string
		ask             any
		status          int // 0 for none
		err             error
		says            string
	}{
		{"a status", "fra1", "fail", 409, 409, nil, "to be told"},
		{"an error", "fra1", "fail", 0, 503, nil, "cannot answer now"},
		{"a panic", "fra1", "panic", "x", 500, nil, "fault"},
		{"another kind of value", "fra1", "echo", 7, 400, nil, "not as it should be"},
		{"what is too long", "fra1", "echo", strings.Repeat("x", maxBody), 413, nil, "16384"},
		{"what there is not", "fra1", "other", "x", 404, nil, "no such call"},
		{"a PoP that there is not", "nowhere", "echo", "x", 0, ErrNobody, ""},
		{"itself", "sin1", "echo", "x", 0, ErrNobody, ""},
	} {
		var got string
		err := c.Call(within(t), test.pop, test.call, test.ask, &got)
		refused := &Refused{}
		if errors.As(err, &refused) != (test.status > 0) || refused.Status != test.status || !strings.Contains(refused.Detail, test.says) ||
			test.err != nil && !errors.Is(err, test.err) || strings.Contains(err.Error(), "not to be told") {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

// TestSeen holds that calls without an answer are told, and others not.
func TestSeen(t *testing.T) {
	p := startPoP(t, nil)
	c := p.client(t, nil)
	var got string
	for _, call := range []string{"echo", "other"} { // the second one is refused
		_ = c.Call(within(t), "fra1", call, "hello", &got)
	}
	_ = c.Call(within(t), "nowhere", "echo", "hello", &got)
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	_ = c.Call(gone, "fra1", "echo", "hello", &got)
	if seen := c.Seen(); len(seen) != 0 {
		t.Errorf("got %+v, want nothing: the PoP answers", seen)
	}
	p.stop()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Call(short, "fra1", "echo", "hello", &got); err == nil {
		t.Fatal("a PoP that has ended answers")
	}
	seen := c.Seen()
	if len(seen) != 1 || seen[0].OK || !seen[0].Passive || seen[0].Target.String() != "pop/fra1" || seen[0].Reason == "" {
		t.Errorf("got %+v, want a failure", seen)
	}
	if seen := c.Seen(); len(seen) != 0 {
		t.Errorf("told twice: %+v", seen)
	}
}

// TestStrangers has calls that are not of a PoP be refused, and the intake get all else.
func TestStrangers(t *testing.T) {
	p := startPoP(t, nil)
	client := intakeclient.New(intakeclient.Config{Roots: p.roots.Pool()})
	defer client.Close()
	body := []byte(`"hello"`)
	send := func(method, path, shown string, body []byte) *intakeclient.Answer {
		t.Helper()
		got, err := client.Post(within(t), []intakeclient.Endpoint{{Target: "fra1", Addr: p.at}}, &intakeclient.Request{
			Method: method, Service: service, Path: path, Body: body, Header: http.Header{headerName: {shown}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	fresh := func() *pass { return newPass(secret, "sin1", "fra1", "POST", Path+"echo", body, time.Now()) }
	used := fresh()
	for _, test := range []struct {
		name, method, path, shown string
		body                      []byte
		status                    int
		says                      string
	}{
		{"a call", "POST", Path + "echo", used.String(), body, 200, "sin1 says hello"},
		{"the same again", "POST", Path + "echo", used.String(), body, 401, "before"},
		{"with another body", "POST", Path + "echo", fresh().String(), []byte(`"hallo"`), 401, "another body"},
		{"with no body", "POST", Path + "echo", fresh().String(), nil, 401, "another body"},
		{"for another call", "POST", Path + "fail", fresh().String(), body, 401, "secret"},
		{"which shows nothing", "POST", Path + "echo", "", body, 401, "shows nothing"},
		{"of another secret", "POST", Path + "echo", newPass([]byte("another one"), "sin1", "fra1", "POST", Path+"echo", body, time.Now()).String(), body, 401, "secret"},
		{"to another PoP", "POST", Path + "echo", newPass(secret, "sin1", "iad1", "POST", Path+"echo", body, time.Now()).String(), body, 401, "secret"},
		{"of yesterday", "POST", Path + "echo", newPass(secret, "sin1", "fra1", "POST", Path+"echo", body, time.Now().Add(-24*time.Hour)).String(), body, 401, "24h0m0"},
		{"of before the start", "POST", Path + "echo", newPass(secret, "sin1", "fra1", "POST", Path+"echo", body, time.Now().Add(-Fresh/2)).String(), body, 401, "too old"},
		{"by GET", "GET", Path + "echo", fresh().String(), nil, 405, "posted"},
		{"with a query", "POST", Path + "echo?a=b", fresh().String(), body, 404, "no such call"},
		{"to nothing", "POST", Path, fresh().String(), body, 404, "no such call"},
		{"to the intake", "POST", dataplane.Path, "", body, 418, dataplane.Path},
		{"to what begins alike", "POST", strings.TrimSuffix(Path, "/"), "", body, 418, "/peer"},
	} {
		got := send(test.method, test.path, test.shown, test.body)
		if got.Status != test.status || !bytes.Contains(got.Body, []byte(test.says)) {
			t.Errorf("%s: got %d %s, want %d %q", test.name, got.Status, got.Body, test.status, test.says)
		}
	}
	p.secret.Store(&[][]byte{})
	if got := send("POST", Path+"echo", fresh().String(), body); got.Status != 404 || !bytes.Contains(got.Body, []byte("no secret")) {
		t.Errorf("without a secret: got %d %s", got.Status, got.Body)
	}
	c := p.client(t, func(c *ClientConfig) { c.Secrets = func() [][]byte { return nil } })
	if err := c.Call(within(t), "fra1", "echo", "x", new(string)); !errors.Is(err, ErrOff) {
		t.Errorf("without a secret: got %v", err)
	}
}

// TestRotation has a secret be changed: as long as the called one takes both, no call is refused.
func TestRotation(t *testing.T) {
	p := startPoP(t, nil)
	var now atomic.Pointer[[][]byte]
	now.Store(&[][]byte{secret})
	c := p.client(t, func(c *ClientConfig) { c.Secrets = func() [][]byte { return *now.Load() } })
	call := func() error { return c.Call(within(t), "fra1", "echo", "x", new(string)) }
	next := NewSecret()
	for i, step := range []struct {
		calls, takes [][]byte
		good         bool
	}{
		{[][]byte{secret}, [][]byte{secret}, true}, {[][]byte{secret}, [][]byte{secret, next}, true},
		{[][]byte{next, secret}, [][]byte{secret, next}, true}, {[][]byte{next}, [][]byte{next}, true}, {[][]byte{secret}, [][]byte{next}, false},
	} {
		now.Store(&step.calls)
		p.secret.Store(&step.takes)
		refused := (*Refused)(nil)
		if err := call(); (err == nil) != step.good || err != nil && (!errors.As(err, &refused) || refused.Status != 401) {
			t.Errorf("step %d: got %v", i, err)
		}
	}
}

// TestAnotherCertificate calls a PoP that has no certificate of ours.
func TestAnotherCertificate(t *testing.T) {
	p, other := startPoP(t, nil), startPoP(t, nil)
	c := p.client(t, func(c *ClientConfig) { c.Roots = pool(other.roots) })
	for range 2 { // over both transports
		if err := c.Call(within(t), "fra1", "echo", "x", new(string)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	}
}

// TestUDPBlocked calls a PoP that UDP does not get through to: the first call fails, and the next ones go over TCP.
func TestUDPBlocked(t *testing.T) {
	p := startPoP(t, nil)
	tcp, udps, err := new(sockets.Pool).Both(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer udps[0].Close() // which nobody reads
	var forwarding sync.WaitGroup
	defer func() { tcp.Close(); p.stop(); forwarding.Wait() }()
	forwarding.Go(func() { forward(tcp, p.at.String(), &forwarding) })
	c := p.client(t, func(c *ClientConfig) {
		c.Find = func(string) (Address, bool) {
			return Address{service, []netip.AddrPort{netip.MustParseAddrPort(tcp.Addr().String())}}, true
		}
	})
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.Call(short, "fra1", "echo", "x", new(string)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over UDP: got %v", err)
	}
	for range 2 {
		if err := c.Call(within(t), "fra1", "echo", "x", new(string)); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Call(within(t), "fra1", "echo", "x", new(string)); !errors.Is(err, ErrOff) {
		t.Errorf("after the end: got %v", err)
	}
}

// forward passes connections on.
func forward(l net.Listener, to string, copying *sync.WaitGroup) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		onward, err := net.Dial("tcp", to)
		if err != nil {
			from.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{from, onward}, {onward, from}} {
			copying.Go(func() {
				_, _ = io.Copy(way[0], way[1]) // until one of them ends
				from.Close()
				onward.Close()
			})
		}
	}
}

// TestSlots has more calls than may be on their way at once.
func TestSlots(t *testing.T) {
	release, begun := make(chan struct{}), make(chan struct{}, maxCalls)
	p := startPoP(t, func(s *Server) {
		Handle(s, "wait", func(ctx context.Context, _, _ string) (string, error) {
			begun <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return "", nil
		})
	})
	c := p.client(t, nil)
	var calling sync.WaitGroup
	for range maxCalls {
		calling.Go(func() { _ = c.Call(within(t), "fra1", "wait", "x", new(string)) })
	}
	for range maxCalls {
		<-begun
	}
	if err := c.Call(within(t), "fra1", "echo", "x", new(string)); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	close(release)
	calling.Wait()
	if err := c.Call(within(t), "fra1", "echo", "x", new(string)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// body is what a client that is slow, or cut off, sends.
type body struct{ io.Reader }

func (body) SetReadDeadline(time.Time) error { return nil }

// header has one field.
type header struct{ name, value string }

func (h header) Repeated(string) bool { return false }

func (h header) Get(name string) string {
	if name == h.name {
		return h.value
	}
	return ""
}

// FuzzAnswer has a server answer whatever a PoP that has the secret sends, and strangers.
func FuzzAnswer(f *testing.F) {
	s := NewServer(ServerConfig{Name: "fra1", Secrets: func() [][]byte { return [][]byte{secret} }})
	ServeQuota(s, nothing{}, noTopology)
	for _, text := range []string{
		`{"asks":[{"key":"k","window":1,"want":1}]}`, `{"asks":[{"key":"k","window":1,"want":1},{"key":"k","window":2,"want":1}]}`, `{}`, `[]`, `null`, ``,
		`{"asks":[{"key":"","window":0,"want":0}]}`, `{"asks":[{"key":"k","window":9223372036854775807,"want":9223372036854775807}]}`, `{"asks":[]} {}`, "\xff",
		strings.Repeat("[", 10000),
	} {
		f.Add([]byte(text), true, int64(len(text)))
	}
	f.Add([]byte("{}"), false, int64(-1))
	f.Fuzz(func(t *testing.T, text []byte, genuine bool, length int64) {
		shown := newPass(secret, "sin1", "fra1", "POST", Path+"quota", text, time.Now())
		if !genuine {
			shown.mac[0]++
		}
		a := new(exchange.Answer)
		s.Before(intake{}).Answer(&exchange.Request{
			Method: "POST", Path: Path + "quota", Header: header{headerName, shown.String()}, ContentLength: length, Context: t.Context(), Body: body{bytes.NewReader(text)},
		}, a)
		if !genuine && a.Status != 401 {
			t.Errorf("a stranger is answered %d: %s", a.Status, a.Body)
		}
		switch a.Status {
		case 200, 400, 401, 413:
		default:
			t.Errorf("got %d: %s", a.Status, a.Body)
		}
	})
}
