package intakeclient

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/qpack"
)

// earlyPost posts on a new connection of a client.
func earlyPost(t *testing.T, c *Client, at netip.AddrPort, header http.Header, body string) *Answer {
	t.Helper()
	to := target{at, host}
	c.mu.Lock()
	lost := c.conns[to]
	c.mu.Unlock()
	if lost != nil {
		c.drop(to, lost)
	}
	answer, err := c.Post(t.Context(), []Endpoint{{Target: "pop", Addr: at}}, &Request{Service: host, Path: "/a?b=c", Header: header, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// manyTries is how often a test may find that a handshake was complete before its request was written, as on a machine that is slow.
const manyTries = 100

// TestEarlyData sends in 0-RTT what may be sent so, and nothing else.
func TestEarlyData(t *testing.T) {
	ca, early, tooEarly, posts := newCA(t), new(atomic.Int64), new(atomic.Bool), new(atomic.Int64)
	at := startHandler(t, ca, func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		body, _ := io.ReadAll(r.Body)
		if !r.TLS.HandshakeComplete {
			early.Add(1)
			if tooEarly.Load() {
				w.WriteHeader(http.StatusTooEarly)
				return
			}
		}
		w.Header().Set("X-Saw", strings.Join([]string{r.Method, r.Host, r.URL.String(), r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key")}, " "))
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(body)
	})
	c := newClient(t, Config{Roots: ca.Pool(), Early: true})
	key := http.Header{"Idempotency-Key": {"k"}, "Content-Type": {"application/json"}}
	check := func(a *Answer, body string) {
		t.Helper()
		if a.Status != 202 || string(a.Body) != body || a.Header.Get("X-Saw") != "POST "+host+" /a?b=c application/json k" || a.TLS == nil || !a.TLS.HandshakeComplete {
			t.Fatalf("got %d %q, %v", a.Status, a.Body, a.Header)
		}
	}
	if a := earlyPost(t, c, at, key, "first"); a.Early {
		t.Error("there is nothing to resume, and the request is early")
	} else {
		check(a, "first")
	}
	tries := 0
	for ; tries < manyTries && early.Load() == 0; tries++ {
		a := earlyPost(t, c, at, key, `{"a": 1}`)
		if check(a, `{"a": 1}`); early.Load() > 0 && !a.Early {
			t.Error("it came early, and the client does not know")
		}
	}
	if early.Load() == 0 {
		t.Errorf("%d requests, none of them early", tries)
	}
	large := strings.Repeat("x", maxEarlyBody+1)
	early.Store(0)
	for _, test := range []struct {
		header http.Header
		body   string
	}{{nil, "{}"}, {key, large}} {
		if a := earlyPost(t, c, at, test.header, test.body); a.Status != 202 || a.Early || early.Load() > 0 {
			t.Errorf("%.10q with %v: got %d, early %v", test.body, test.header, a.Status, a.Early)
		}
	}
	tooEarly.Store(true)
	for tries = 0; tries < manyTries && early.Load() == 0; tries++ {
		a := earlyPost(t, c, at, key, "again")
		if check(a, "again"); early.Load() > 0 && a.Early {
			t.Error("it was answered after the handshake, and is said to have been early")
		}
	}
	if early.Load() == 0 {
		t.Errorf("%d requests, none of them too early", tries)
	}
}

// TestEarlyDataIsRefused restarts the server, which knows its sessions no more: each post arrives once all the same.
func TestEarlyDataIsRefused(t *testing.T) {
	ca := newCA(t)
	first := startServer(t, ca)
	c := newClient(t, Config{Roots: ca.Pool(), Early: true})
	key := http.Header{"Idempotency-Key": {"k"}}
	earlyPost(t, c, first.at, key, "a")
	first.close()
	second := startServerAt(t, ca, first.at.String())
	for i := range 3 {
		if a := earlyPost(t, c, second.at, key, "b"); a.Status != 200 || string(a.Body) != "b" || i == 0 && a.Early {
			t.Errorf("%d: got %d %q, early %v", i, a.Status, a.Body, a.Early)
		}
	}
	if n := second.posts.Load(); n != 3 {
		t.Errorf("3 posts came as %d", n)
	}
}

// answerOf is an answer as a server sends it.
func answerOf(fields []string, body ...string) []byte {
	var section bytes.Buffer
	encoder := qpack.NewEncoder(&section)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	frame := func(kind byte, text string) []byte {
		return append([]byte{kind, 0x80, 0, byte(len(text) >> 8), byte(len(text))}, text...)
	}
	all := frame(frameHeaders, section.String())
	for _, b := range body {
		all = append(all, frame(frameData, b)...)
	}
	return all
}

func TestReadResponse(t *testing.T) {
	interim := answerOf([]string{":status", "103", "link", "x"})
	for _, test := range []struct {
		name, sent string
		want       string // status and body, or the error
	}{
		{"plain", string(answerOf([]string{":status", "202", "content-length", "3"}, "abc")), "202 abc"},
		{"pieces, a frame that is unknown, trailers", string(interim) + "\x21\x02zz" + string(answerOf([]string{":status", "200"}, "ab", "", "c")) +
			string(answerOf([]string{"x-trailer", "y"})), "200 abc"},
		{"no body", string(answerOf([]string{":status", "204"})), "204 "},
		{"long", string(answerOf([]string{":status", "200"}, strings.Repeat("x", 60_000), strings.Repeat("x", 60_000))), "200 " + strings.Repeat("x", maxAnswer)},
		{"nothing", "", "cut off"},
		{"cut off in the body", string(answerOf([]string{":status", "200"}, "abc")[:12]), "cut off"},
		{"cut off in a head", "\x01", "cut off"},
		{"short", string(answerOf([]string{":status", "200", "content-length", "4"}, "abc")), "Content-Length"},
		{"body first", "\x00\x01a", "without a header"},
		{"no status", string(answerOf([]string{"a", "b"})), "no status"},
		{"two statuses", string(answerOf([]string{":status", "200", ":status", "200"})), "its header has"},
		{"a field in capitals", string(answerOf([]string{":status", "200", "A", "b"})), "a field that is none"},
		{"a field that is two", string(answerOf([]string{":status", "200", "a", "b\r\nc: d"})), "a field that is none"},
		{"many interim ones", strings.Repeat(string(interim), maxInterim+1), "too many interim"},
		{"a long frame", "\x21\x80\xff\xff\xff", "too much"},
		{"a long header", "\x01\x80\xff\xff\xff", "a header of"},
	} {
		got := ""
		response, err := readResponse(iotest(test.sent))
		if err != nil {
			got = err.Error()
		} else {
			body, _ := io.ReadAll(response.Body)
			got = response.Status[:3] + " " + string(body)
		}
		if err == nil && got != test.want || err != nil && !strings.Contains(got, test.want) || (err == nil) != (test.want[0] == '2') {
			t.Errorf("%s: got %.80q, want %.80q", test.name, got, test.want)
		}
	}
}

// iotest reads octet by octet, as what comes in many packets.
func iotest(text string) io.Reader { return oneByOne{strings.NewReader(text)} }

type oneByOne struct{ from io.Reader }

// Read implements io.Reader.
func (r oneByOne) Read(p []byte) (int, error) { return r.from.Read(p[:min(len(p), 1)]) }

// FuzzReadResponse reads what a server may send.
func FuzzReadResponse(f *testing.F) {
	f.Add(answerOf([]string{":status", "103"}))
	f.Add(answerOf([]string{":status", "202", "content-type", "application/json", "content-length", "2"}, "{", "}"))
	f.Add([]byte("\x21\x02zz\x01\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		response, err := readResponse(bytes.NewReader(sent))
		if err != nil {
			return
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || len(body) > maxAnswer || response.StatusCode < 200 || response.StatusCode > 999 {
			t.Errorf("got %d with %d octets, %v", response.StatusCode, len(body), err)
		}
		for name, values := range response.Header {
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Errorf("got the field %q: %q", name, values)
			}
		}
	})
}

// TestEarlyDataWaits has a server that does not answer: who waits can give up.
func TestEarlyDataWaits(t *testing.T) {
	ca, hold := newCA(t), make(chan struct{})
	at := startHandler(t, ca, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") != "" {
			<-hold
		}
	})
	defer close(hold)
	c := newClient(t, Config{Roots: ca.Pool(), Early: true})
	earlyPost(t, c, at, http.Header{"Idempotency-Key": {"k"}}, "")
	to := target{at, host}
	c.mu.Lock()
	lost := c.conns[to]
	c.mu.Unlock()
	c.drop(to, lost)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := c.Post(ctx, []Endpoint{{Target: "pop", Addr: at}}, &Request{Service: host, Header: http.Header{"Idempotency-Key": {"k"}, "X-Wait": {"1"}}})
	if err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}
