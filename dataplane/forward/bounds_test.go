package forward

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// TestTruncatedAnswers cuts answers everywhere: none is taken before it is whole.
func TestTruncatedAnswers(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
		"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nwhole\r\n0\r\nTrailer: x\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\n",
	} {
		for n := range len(answer) {
			if r, err := newResponseReader(strings.NewReader(answer[:n])).next(); err == nil {
				t.Errorf("%q is taken as %+v", answer[:n], r)
			}
		}
		reader := newResponseReader(strings.NewReader(answer))
		r, err := reader.next()
		if err != nil {
			t.Errorf("%q: %v", answer, err)
		}
		if _, err := reader.next(); !r.last && err != io.EOF {
			t.Errorf("%q: got %v behind it", answer, err)
		}
		if r.last != strings.HasPrefix(answer, "HTTP/1.0") {
			t.Errorf("%q: got %+v", answer, r)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "600": 10 * time.Minute, "601": 10 * time.Minute, "99999999999999999999": 10 * time.Minute,
		"-1": 0, "+1": 0, "1.5": 0, "": 0, "soon": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(time.Hour).Format(http.TimeFormat): 10 * time.Minute,
		now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

// TestStarved tells of HTTP/2 connections that a cluster lets nothing be sent on.
func TestStarved(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*http2Conn)
		starved bool
	}{
		{"as it begins", func(*http2Conn) {}, false},
		{"no window", func(h *http2Conn) { h.window = 0 }, true},
		{"no streams", func(h *http2Conn) { h.allowed = 0 }, true},
		{"no streams, and one on the way", func(h *http2Conn) { h.allowed, h.streams[1] = 0, &stream{} }, false},
	} {
		h := newHTTP2(&conn{endpoint: &endpoint{cluster: &cluster{}}})
		if test.change(h); h.starved() != test.starved {
			t.Errorf("%s: got %v", test.name, h.starved())
		}
	}
}

// TestOtherNameInACertificate has an endpoint show a certificate that is trusted and of another name: it gets nothing.
func TestOtherNameInACertificate(t *testing.T) {
	ap := newStore(t, "ap")
	server := httptest.NewUnstartedServer(ap)
	server.StartTLS()
	t.Cleanup(server.Close)
	url := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // which the certificate is not for
	w := newWorld(t, map[string]string{"ap": url}, nil, func(c *Config) { c.Roots = rootsOf(server) })
	w.post(t, "secret", nil)
	w.run(t)
	eventually(t, "the certificate to be refused", func() bool {
		return strings.Contains(w.Stats().Clusters["ap"].Endpoints[url].LastFailure, "certificate is valid for")
	})
	if ap.came > 0 {
		t.Error("an envelope was sent")
	}
}

// TestNoFieldsByID has ids that would end a header field.
func TestNoFieldsByID(t *testing.T) {
	ap := newStore(t, "ap")
	w := newWorld(t, map[string]string{"ap": ap.serve(t).URL}, nil, nil)
	w.run(t)
	for i, id := range []string{"sin1.a\r\nx-evil: 1", "sin1.a b", "sin1.é"} {
		w.post(t, "body", func(e *spool.Envelope) { e.ID = id })
		if got := w.settles(t, i+1)[id]; got.Acknowledged || got.Reason != errUnsendable.Error() {
			t.Errorf("%q: got %+v", id, got)
		}
	}
	if ap.came > 0 {
		t.Error("something was sent")
	}
}
