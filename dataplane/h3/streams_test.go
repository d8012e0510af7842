package h3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// post are the frames of the header of a POST.
func post(t testing.TB, more ...string) []byte {
	return stream(1, encode(t, append([]string{":method", "POST", ":scheme", "https", ":authority", "h3.test", ":path", "/"}, more...)...))
}

// open opens a stream and sends octets on it, which are not all.
func (r *running) open(t *testing.T, octets []byte) *quic.Stream {
	t.Helper()
	s, err := r.conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Write(octets); err != nil {
		t.Fatal(err)
	}
	return s
}

func isReset(err error, code http3.ErrCode) bool {
	var reset *quic.StreamError
	return errors.As(err, &reset) && reset.Remote && http3.ErrCode(reset.ErrorCode) == code
}

// TestContinue has a client wait for 100 before it sends the body.
func TestContinue(t *testing.T) {
	r := serve(t, Config{Handler: handlerFunc(echo)})
	s := r.open(t, post(t, "expect", "100-continue"))
	f := frames{from: s, buf: make([]byte, 4096)}
	kind, length, err := f.next()
	if err != nil || kind != frameHeaders {
		t.Fatal(kind, err)
	}
	if block, err := f.whole(length); err != nil || !bytes.Equal(block, appendStatus([]byte{0, 0}, 100)) {
		t.Fatalf("got %x, %v", block, err)
	}
	if _, err := s.Write(stream(0, []byte("after it"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got, err := io.ReadAll(s); err != nil || bytes.Count(got, []byte("after it")) != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestResetInBody gives a request up in the middle of its body: the handler gets an error, never the end of the body.
func TestResetInBody(t *testing.T) {
	begun, read := make(chan struct{}, 1), make(chan error, 1)
	r := serve(t, Config{Handler: handlerFunc(func(r *exchange.Request, a *exchange.Answer) {
		var first [1]byte
		_, _ = io.ReadFull(r.Body, first[:])
		begun <- struct{}{}
		_, err := io.ReadAll(r.Body)
		read <- err
		a.Status = 400
	})})
	for _, octets := range [][]byte{
		append(post(t), stream(0, []byte("hell"))...),                        // between frames
		append(post(t, "content-length", "5"), stream(0, []byte("hell"))...), // likewise
		append(appendFrame(post(t), frameData, 5), "hell"...),                // within one
	} {
		s := r.open(t, octets)
		<-begun
		s.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		if err := <-read; !isReset(err, http3.ErrCodeRequestCanceled) {
			t.Errorf("got %v", err)
		}
	}
	go func() { <-begun; <-read }()
	if got, err := r.send(t, append(post(t), stream(0, []byte("a"))...)); err != nil {
		t.Errorf("on the same connection, after it: got %q, %v", got, err)
	}
}

// TestSlowHeader does not send a header to its end, and then does so again and again.
func TestSlowHeader(t *testing.T) {
	r := serve(t, Config{Handler: handlerFunc(echo), HeaderTimeout: 20 * time.Millisecond})
	if got, err := io.ReadAll(r.open(t, post(t)[:9])); !isReset(err, http3.ErrCodeRequestIncomplete) {
		t.Errorf("got %q, %v", got, err)
	}
	for range maxAborted {
		stream, err := r.conn.OpenStreamSync(t.Context())
		if err != nil {
			break // it is closed
		}
		_, _ = stream.Write(post(t)[:9])
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		_, _ = io.ReadAll(stream) // fails
	}
	<-r.conn.Context().Done()
	var closed *quic.ApplicationError
	if err := context.Cause(r.conn.Context()); !errors.As(err, &closed) || http3.ErrCode(closed.ErrorCode) != http3.ErrCodeExcessiveLoad {
		t.Errorf("got %v", err)
	}
}

// TestRememberedHeader holds headers apart that are not the same to the last octet.
func TestRememberedHeader(t *testing.T) {
	s, c := New(Config{}), new(conn)
	block := func(more ...string) []byte { return encode(t, append(append([]string(nil), pseudo...), more...)...) }
	parsed := func(block []byte) *header {
		t.Helper()
		h, err := s.parsed(c, block)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	buf := block("x-api-key", "a")
	first := parsed(buf)
	if parsed(bytes.Clone(buf)) != first {
		t.Error("the same header was parsed again")
	}
	copy(buf, block("x-api-key", "b")) // as the next request does with the buffer
	if got := parsed(buf); got == first || got.fields.Get("X-Api-Key") != "b" || first.fields.Get("X-Api-Key") != "a" {
		t.Errorf("got %+v, after %+v", got, first)
	}
	if got := parsed(buf[:len(buf):len(buf)]); got.fields.Get("X-Api-Key") != "b" {
		t.Errorf("got %+v", got)
	}
	known := c.latest.Load()
	long := block("x", string(bytes.Repeat([]byte{'{'}, maxRemembered)))
	if parsed(long); c.latest.Load() != known {
		t.Error("a long header is kept")
	}
	if _, err := s.parsed(c, block("X", "malformed")); !errors.Is(err, errMalformed) || c.latest.Load() != known {
		t.Errorf("got %v", err)
	}
	other := new(conn)
	if h, err := s.parsed(other, buf); err != nil || h == known.header {
		t.Error("connections share a header")
	}
}

// TestTooManyRequests has more at a time than the server wants, on all connections together.
func TestTooManyRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := serve(t, Config{MaxRequests: 2, Handler: handlerFunc(func(_ *exchange.Request, a *exchange.Answer) {
		entered <- struct{}{}
		<-leave
		a.Status = 202
	})})
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			if got, err := r.send(t, post(t)); err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
		<-entered
	}
	if got, err := r.send(t, post(t)); !isReset(err, http3.ErrCodeRequestRejected) {
		t.Errorf("the third: got %q, %v", got, err)
	}
	close(leave)
	asking.Wait()
	for r.active.Load() > 0 { // an answer is there before its goroutine knows
		runtime.Gosched()
	}
	go func() { <-entered }()
	if got, err := r.send(t, post(t)); err != nil {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

// TestManyOnOneConnection leaves room for others.
func TestManyOnOneConnection(t *testing.T) {
	const most = 4 * fewRequests
	entered, leave := make(chan struct{}), make(chan struct{})
	r := serve(t, Config{MaxRequests: most, Handler: handlerFunc(func(_ *exchange.Request, a *exchange.Answer) {
		entered <- struct{}{}
		<-leave
		a.Status = 202
	})})
	conn, err := quic.DialAddr(t.Context(), r.conn.RemoteAddr().String(), r.config, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	other := &running{Server: r.Server, conn: conn}
	var asking sync.WaitGroup
	ask := func(r *running, n int) {
		for range n {
			asking.Go(func() {
				if got, err := r.send(t, post(t)); err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
			<-entered
		}
	}
	end := func(n int) {
		for range n {
			leave <- struct{}{}
		}
		asking.Wait()
		for r.active.Load() > 0 { // an answer is there before its goroutine knows
			runtime.Gosched()
		}
	}
	for many, few := r, other; ; many, few = other, r { // and once more in turn, so that nothing is left over of the first time
		ask(many, most/2)
		if got, err := many.send(t, post(t)); !isReset(err, http3.ErrCodeRequestRejected) {
			t.Errorf("one more than half of all: got %q, %v", got, err)
		}
		ask(few, fewRequests)
		if got, err := few.send(t, post(t)); !isReset(err, http3.ErrCodeRequestRejected) {
			t.Errorf("one more than few of another connection: got %q, %v", got, err)
		}
		end(most/2 + fewRequests)
		if many == other {
			return
		}
	}
}

// TestDismissal leaves no goroutines behind a burst.
func TestDismissal(t *testing.T) {
	var all sync.WaitGroup
	const burst = 50
	all.Add(burst)
	r := serveWith(t, Config{Handler: handlerFunc(func(_ *exchange.Request, a *exchange.Answer) {
		all.Done()
		all.Wait() // so that there are as many at a time
		a.Status = 202
	})}, &quic.Config{}, func(s *Server) { s.dismissEach = 5 * time.Millisecond })
	before := runtime.NumGoroutine()
	var asking sync.WaitGroup
	for range burst {
		asking.Go(func() {
			if got, err := r.send(t, post(t)); err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	asking.Wait()
	for end := time.Now().Add(10 * time.Second); r.active.Load() > 0 || r.idle.Load() > 0 || runtime.NumGoroutine() > before+2; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines wait for requests; there are %d, and %d before", r.idle.Load(), runtime.NumGoroutine(), before)
		}
	}
}

// tickets is a cache that says when there is one.
type tickets struct {
	tls.ClientSessionCache
	got chan struct{}
}

func (c tickets) Put(key string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, state)
	select {
	case c.got <- struct{}{}:
	default:
	}
}

// deaf is a socket that hears nothing until it is opened, so that a handshake does not get on.
type deaf struct {
	net.PacketConn
	open chan struct{}
}

func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	<-d.open
	return d.PacketConn.ReadFrom(p)
}

// TestEarly sends a request in 0-RTT, one after the handshake, and one that says that it came early to somebody else.
func TestEarly(t *testing.T) {
	early := make(chan bool, 1)
	r := serveWith(t, Config{Handler: handlerFunc(func(r *exchange.Request, a *exchange.Answer) {
		early <- r.Early
		a.Status = 202
	})}, &quic.Config{Allow0RTT: true}, nil)
	cache := tickets{tls.NewLRUClientSessionCache(1), make(chan struct{}, 1)}
	config := r.config.Clone()
	config.ClientSessionCache = cache
	first, err := quic.DialAddr(t.Context(), r.conn.RemoteAddr().String(), config, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	<-cache.got
	_ = first.CloseWithError(0, "")

	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := deaf{socket, make(chan struct{})}
	hear := sync.OnceFunc(func() { close(client.open) })
	transport := &quic.Transport{Conn: client}
	t.Cleanup(func() { hear(); transport.Close(); socket.Close() })
	again, err := transport.DialEarly(t.Context(), r.conn.RemoteAddr(), config, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.CloseWithError(0, "") }()
	resumed := &running{Server: r.Server, conn: again}
	s := resumed.open(t, post(t))
	s.Close()
	if !<-early {
		t.Error("a request in 0-RTT is not early")
	}
	hear()
	if got, err := io.ReadAll(s); err != nil || len(got) == 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if !again.ConnectionState().Used0RTT {
		t.Error("0-RTT was not used")
	}
	if _, err := resumed.send(t, post(t)); err != nil || <-early {
		t.Errorf("after the handshake: early, or %v", err)
	}
	if _, err := resumed.send(t, post(t, "early-data", "1")); err != nil || !<-early {
		t.Errorf("with Early-Data: not early, or %v", err)
	}
}
