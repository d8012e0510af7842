package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// handlerFunc is a handler.
type handlerFunc func(*Request, *Answer)

func (h handlerFunc) Answer(r *Request, a *Answer) { h(r, a) }

// served has a handler answer one request that is written as it goes over the wire.
func served(t *testing.T, h handlerFunc, request string, extra ...Field) (*http.Response, string, error) {
	t.Helper()
	server := httptest.NewServer(Serve(h, extra...))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}

func TestRequest(t *testing.T) {
	var got Request
	var body string
	_, _, err := served(t, func(r *Request, a *Answer) {
		got = *r
		text, err := io.ReadAll(r.Body)
		if body = string(text); err != nil {
			t.Error(err)
		}
		if key := r.Header.Get("X-Api-Key"); key != "first" {
			t.Errorf("got the key %q, want the first", key)
		}
		a.Status = http.StatusNoContent
	}, "POST /a%2Fb?c=d?e HTTP/1.1\r\nHost: Intake.example:8443\r\nX-API-Key: first\r\nX-API-Key: second\r\nEarly-Data: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.Path != "/a%2Fb" || got.Query != "c=d?e" || got.Host != "Intake.example:8443" || got.Proto != "http/1.1" ||
		got.ContentLength != -1 || !got.Early || got.Remote.Addr() != netip.MustParseAddr("127.0.0.1") || body != "abc" {
		t.Errorf("got %+v and %q", got, body)
	}
}

func TestAnswer(t *testing.T) {
	answer := handlerFunc(func(r *Request, a *Answer) {
		a.Status = http.StatusAccepted
		a.Add("content-type", "application/json")
		a.Add("x-of-its-own", "1")
		a.Add("x-of-its-own", "2")
		a.Add("alt-svc", "of the handler")
		a.Body = append(a.Body, "answer to "+r.Method...)
	})
	for range 2 { // the second one takes the memory of the first
		for _, method := range []string{"GET", "HEAD", "POST"} {
			response, body, err := served(t, answer, method+" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Field{"alt-svc", "of the server"})
			if err != nil {
				t.Fatal(err)
			}
			want, length := "answer to "+method, int64(len("answer to "+method))
			if method == "HEAD" {
				want, length = "", -1
			}
			if response.StatusCode != http.StatusAccepted || body != want || response.ContentLength != length {
				t.Errorf("%s: got %d, %q of %d octets", method, response.StatusCode, body, response.ContentLength)
			}
			for name, want := range map[string]string{
				"Content-Type": "[application/json]", "X-Of-Its-Own": "[1 2]", "Alt-Svc": "[of the server of the handler]",
			} {
				if got := fmt.Sprint(response.Header[name]); got != want {
					t.Errorf("%s: %s: got %s, want %s", method, name, got, want)
				}
			}
		}
	}
}

// TestReadDeadline has a body not come.
func TestReadDeadline(t *testing.T) {
	response, _, err := served(t, func(r *Request, a *Answer) {
		if err := r.Body.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		a.Status = http.StatusBadRequest
	}, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("got %v, %v", response, err)
	}
}

// TestCanonical holds the names that are known by heart to net/http's.
func TestCanonical(t *testing.T) {
	for name, known := range names {
		if want := http.CanonicalHeaderKey(name); known != want || canonical(name) != want {
			t.Errorf("got %s, want %s", known, want)
		}
	}
	if got := canonical("x-other"); got != "X-Other" {
		t.Errorf("got %s", got)
	}
}
