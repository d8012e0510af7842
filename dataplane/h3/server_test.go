package h3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFunc is a handler.
type handlerFunc func(*exchange.Request, *exchange.Answer)

func (h handlerFunc) Answer(r *exchange.Request, a *exchange.Answer) { h(r, a) }

// echo answers with the body.
func echo(r *exchange.Request, a *exchange.Answer) {
	body, err := io.ReadAll(r.Body)
	a.Status = 200
	if err != nil {
		a.Status, body = 400, []byte(err.Error())
	}
	a.Add("x-path", r.Method+" "+r.Host+" "+r.Path+" "+r.Header.Get("X-Test"))
	a.Body = append(a.Body, body...)
}

// running is a server on loopback with a client's connection to it.
type running struct {
	*Server
	conn   *quic.Conn
	config *tls.Config // of the client
}

func serve(t *testing.T, c Config) *running {
	t.Helper()
	return serveWith(t, c, &quic.Config{}, nil)
}

// serveWith is serve with a transport of another configuration, and a server that is changed before it serves.
func serveWith(t *testing.T, c Config, transportConfig *quic.Config, change func(*Server)) *running {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Certificate("h3.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.ListenEarly(http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{*leaf}}), transportConfig)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: New(c), config: &tls.Config{RootCAs: ca.Pool(), ServerName: "h3.test", NextProtos: []string{http3.NextProtoH3}}}
	if change != nil {
		change(r.Server)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			serving.Go(func() { r.ServeConn(conn, new(atomic.Int64)) })
		}
	})
	r.conn, err = quic.DialAddr(t.Context(), socket.LocalAddr().String(), r.config, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		_ = r.conn.CloseWithError(0, "")
		listener.Close()
		transport.Close()
		socket.Close()
		serving.Wait()
	})
	return r
}

// TestWithAnotherClient has quic-go's client ask.
func TestWithAnotherClient(t *testing.T) {
	r := serve(t, Config{Handler: handlerFunc(echo)})
	client := (&http3.Transport{}).NewClientConn(r.conn)
	ask := func(method, path string, body io.Reader, length int64) *http.Response {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "https://h3.test"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		request.ContentLength = length
		request.Header.Set("X-Test", "value")
		response, err := client.RoundTrip(request)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return response
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	for _, test := range []struct {
		method string
		body   []byte
		told   bool
	}{{"POST", []byte("hello"), true}, {"POST", []byte("hello"), false}, {"POST", big, true}, {"PUT", big, false}, {"GET", nil, true}, {"HEAD", nil, true}} {
		length := int64(-1)
		var body io.Reader = bytes.NewReader(test.body)
		if test.told {
			length = int64(len(test.body))
		}
		if test.body == nil {
			body = nil
		}
		response := ask(test.method, "/p?q", body, length)
		got, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 200 || !bytes.Equal(got, test.body) {
			t.Errorf("%s of %d octets: got %d and %d octets, %v", test.method, len(test.body), response.StatusCode, len(got), err)
		}
		if at := response.Header.Get("X-Path"); at != test.method+" h3.test /p value" {
			t.Errorf("got %q", at)
		}
	}
	var asking sync.WaitGroup
	for i := range 200 { // different headers and bodies at a time
		asking.Go(func() {
			text := strings.Repeat("x", i*37)
			response := ask("POST", "/"+strings.Repeat("p", i), strings.NewReader(text), int64(len(text)))
			if got, err := io.ReadAll(response.Body); err != nil || string(got) != text || !strings.Contains(response.Header.Get("X-Path"), "/"+strings.Repeat("p", i)+" ") {
				t.Errorf("request %d: got %d octets, %v", i, len(got), err)
			}
		})
	}
	asking.Wait()
}

// send sends octets on a stream of its own and returns what comes back.
func (r *running) send(t *testing.T, octets []byte) ([]byte, error) {
	t.Helper()
	stream, err := r.conn.OpenStreamSync(t.Context())
	if err != nil {
		return nil, err
	}
	_ = stream.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = stream.Write(octets) // a server that has answered may want no more of it (RFC 9114 section 4.1): what it says is read below
	stream.Close()
	return io.ReadAll(stream)
}

func TestErrorsOfStreams(t *testing.T) {
	r := serve(t, Config{Handler: handlerFunc(func(r *exchange.Request, a *exchange.Answer) {
		switch r.Path {
		case "/panic":
			panic("as asked for")
		case "/rejected":
			a.Rejected = true
		default:
			echo(r, a)
		}
	})})
	at := func(path string, more ...string) []byte {
		return stream(1, encode(t, append([]string{":method", "POST", ":scheme", "https", ":authority", "h3.test", ":path", path}, more...)...))
	}
	for name, test := range map[string]struct {
		octets []byte
		want   http3.ErrCode
	}{
		"malformed":      {at("/", "Upper", "case"), http3.ErrCodeMessageError},
		"nothing":        {nil, http3.ErrCodeRequestIncomplete},
		"panic":          {at("/panic"), http3.ErrCodeInternalError},
		"nobody's worry": {at("/rejected"), http3.ErrCodeRequestRejected},
	} {
		var reset *quic.StreamError
		if got, err := r.send(t, test.octets); !errors.As(err, &reset) || http3.ErrCode(reset.ErrorCode) != test.want {
			t.Errorf("%s: got %q, %v, want %v", name, got, err, test.want)
		}
	}
	large := at("/", "a", strings.Repeat("b", 15<<10), "c", strings.Repeat("d", 15<<10))
	if got, err := r.send(t, large); err != nil || !bytes.Contains(got, []byte("431")) {
		t.Errorf("a large header: got %q, %v", got, err)
	}
	if got, err := r.send(t, append(at("/", "content-length", "9"), stream(0, []byte("short"))...)); err != nil || !bytes.Contains(got, []byte("Content-Length")) {
		t.Errorf("a short body: got %q, %v", got, err)
	}
	if got, err := r.send(t, append(at("/"), stream(0, []byte("fine"))...)); err != nil || !bytes.Contains(got, []byte("fine")) {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

func TestErrorsOfConnections(t *testing.T) {
	for name, test := range map[string]struct {
		octets []byte
		want   http3.ErrCode
	}{
		"DATA first":         {stream(0, []byte("a")), http3.ErrCodeFrameUnexpected},
		"SETTINGS":           {stream(4, []byte{}), http3.ErrCodeFrameUnexpected},
		"a dynamic table":    {stream(1, []byte{5, 0, 0x80}), http3.ErrCodeQPACKDecompressionFailed},
		"a header cut off":   {stream(1, encode(t, pseudo...))[:5], http3.ErrCodeFrameError}, // RFC 9114 section 7.1
		"a length cut off":   {[]byte{1, 0x40}, http3.ErrCodeFrameError},
		"grease cut off":     {[]byte{0x21, 9, 'x'}, http3.ErrCodeFrameError},
		"a body cut off":     {append(stream(1, encode(t, pseudo...)), stream(0, []byte("hello"))[:4]...), http3.ErrCodeFrameError},
		"SETTINGS in a body": {append(stream(1, encode(t, pseudo...)), stream(4, []byte{})...), http3.ErrCodeFrameUnexpected},
	} {
		r := serve(t, Config{Handler: handlerFunc(echo)})
		_, _ = r.send(t, test.octets) // fails in one way or another
		<-r.conn.Context().Done()
		var closed *quic.ApplicationError
		if err := context.Cause(r.conn.Context()); !errors.As(err, &closed) || http3.ErrCode(closed.ErrorCode) != test.want {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		octets []byte
		want   http3.ErrCode
	}{
		"no settings first":   {append([]byte{0}, stream(7, []byte{0})...), http3.ErrCodeMissingSettings},
		"a push stream":       {[]byte{1, 0}, http3.ErrCodeStreamCreationError},
		"a setting of HTTP/2": {append([]byte{0}, stream(4, []byte{2, 0})...), http3.ErrCodeSettingsError},
	} {
		r := serve(t, Config{Handler: handlerFunc(echo)})
		control, err := r.conn.OpenUniStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := control.Write(test.octets); err != nil {
			t.Fatal(err)
		}
		<-r.conn.Context().Done()
		var closed *quic.ApplicationError
		if err := context.Cause(r.conn.Context()); !errors.As(err, &closed) || http3.ErrCode(closed.ErrorCode) != test.want {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// TestShutdown lets the request in flight end, and has those after it sent elsewhere.
func TestShutdown(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := serve(t, Config{Handler: handlerFunc(func(r *exchange.Request, a *exchange.Answer) {
		close(entered)
		<-leave
		a.Status, a.Body = 202, append(a.Body, "in flight"...)
	})})
	answered := make(chan error, 1)
	go func() {
		got, err := r.send(t, stream(1, encode(t, pseudo...)))
		if err == nil && !bytes.Contains(got, []byte("in flight")) {
			err = errors.New(string(got))
		}
		answered <- err
	}()
	<-entered
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { ended <- r.Shutdown(ctx) }()
	<-r.grace.Done()
	for { // until the server knows
		_, err := r.send(t, stream(1, encode(t, pseudo...)))
		var reset *quic.StreamError
		if errors.As(err, &reset) && http3.ErrCode(reset.ErrorCode) == http3.ErrCodeRequestRejected {
			break
		}
		t.Fatalf("a request after the end has begun: %v", err)
	}
	close(leave)
	if err := <-answered; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	_ = r.conn.CloseWithError(0, "") // as a client does that was told to go
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
