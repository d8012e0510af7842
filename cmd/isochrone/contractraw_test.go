package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// line is a connection of HTTP/1.1 on which a test says what it wants, octet by octet.
type line struct {
	*tls.Conn
	answers *bufio.Reader
}

func (c *contract) dial(t *testing.T) *line {
	t.Helper()
	conn, err := tls.Dial("tcp", c.at, c.tls("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &line{conn, bufio.NewReader(conn)}
}

func (l *line) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		t.Fatal(err)
	}
}

// hear reads the next answer; 1xx are answers too.
func (l *line) hear() (answered, error) {
	response, err := http.ReadResponse(l.answers, nil)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answered{response.StatusCode, response.Proto, response.Header, string(body)}, err
}

// raw tries what no client library sends.
func (c *contract) raw(t *testing.T) {
	head := func(lines ...string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\n\r\n", contractPath, contractHost, strings.Join(lines, "\r\n"))
	}
	key, length := "X-API-Key: "+c.key, fmt.Sprintf("Content-Length: %d", len(contractPayload))
	good := head(key, length) + contractPayload
	hear := func(t *testing.T, l *line) answered {
		t.Helper()
		got, err := l.hear()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	t.Run("pipelined", func(t *testing.T) {
		l := c.dial(t)
		bad := head(key, "Content-Length: 1") + "{"
		l.say(t, good+bad+good+head(length)+contractPayload+good)
		seen := map[string]bool{}
		for i, want := range []int{202, 400, 202, 401, 202} {
			got := hear(t, l)
			if got.status != want {
				t.Fatalf("answer %d: got %d %s, want %d", i, got.status, got.body, want)
			}
			if want == 202 {
				seen[c.accepted(t, "pipelined", got, contractPayload, "application/json")] = true
			}
		}
		if len(seen) != 3 {
			t.Errorf("three requests have the ids %v", seen)
		}
	})
	t.Run("Expect: 100-continue", func(t *testing.T) {
		l := c.dial(t)
		l.say(t, head(length, key, "Expect: 100-continue"))
		if got := hear(t, l); got.status != 100 {
			t.Fatalf("got %d, want 100", got.status)
		}
		l.say(t, contractPayload)
		c.accepted(t, "after 100", hear(t, l), contractPayload, "application/json")
		l.say(t, head(length, "X-API-Key: wrong", "Expect: 100-continue"))
		hear(t, l).problem(t, "the body of a request without a key is not asked for", 401)
	})
	t.Run("chunks", func(t *testing.T) {
		l := c.dial(t)
		chunked := head(key, "Transfer-Encoding: chunked", "Trailer: X-Checksum")
		for i := range len(contractPayload) {
			chunked += fmt.Sprintf("1;ext=%d\r\n%c\r\n", i, contractPayload[i])
		}
		l.say(t, chunked+"0\r\nX-Checksum: 1\r\nX-API-Key: other\r\n\r\n"+good)
		c.accepted(t, "of one octet, with trailers", hear(t, l), contractPayload, "application/json")
		c.accepted(t, "after it", hear(t, l), contractPayload, "application/json")
	})
	t.Run("a body that is cut", func(t *testing.T) {
		l := c.dial(t)
		l.say(t, head(key, "Content-Length: 100")+contractPayload)
		if err := l.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := l.hear(); err == nil && got.status != 400 {
			t.Errorf("got %d: %s", got.status, got.body)
		}
	})
	for _, test := range []struct{ name, said string }{
		{"two lengths that differ", head(key, length, "Content-Length: 3") + contractPayload},
		{"a negative length", head(key, "Content-Length: -1") + contractPayload},
		{"a length that is no number", head(key, "Content-Length: 0x10") + contractPayload},
		{"a chunk's length that is none", head(key, "Transfer-Encoding: chunked") + "zz\r\n"},
		{"a space before a colon", head("X-API-Key : "+c.key, length) + contractPayload},
		{"a header without a name", head(key, ": x", length) + contractPayload},
		{"a carriage return in a value", head(key+"\rX-Other: 1", length) + contractPayload},
		{"a NUL in a value", head(key, "X-Other: a\x00b", length) + contractPayload},
		{"no host", strings.Replace(good, "Host: "+contractHost+"\r\n", "", 1)},
		{"two hosts", strings.Replace(good, "Host: ", "Host: a.example\r\nHost: ", 1)},
		{"no HTTP", "hello\r\n\r\n"},
		{"a version of its own", strings.Replace(good, "HTTP/1.1", "HTTP/1.7x", 1)},
		{"a method with a space", "PO ST" + good[4:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := c.dial(t)
			l.say(t, test.said)
			got, err := l.hear()
			if err == nil && (got.status < 400 || got.status >= 500 && got.status != 501 && got.status != 505) {
				t.Errorf("got %d: %s", got.status, got.body)
			}
		})
	}
	t.Run("both a length and chunks", func(t *testing.T) { // RFC 9112 section 6.1: the chunks count, and the connection must end or not be confused
		l := c.dial(t)
		l.say(t, head(key, "Content-Length: 4", "Transfer-Encoding: chunked")+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(contractPayload), contractPayload)+good)
		for {
			got, err := l.hear()
			if err != nil {
				return
			}
			if got.status == 202 {
				c.accepted(t, "with both", got, contractPayload, "application/json")
			} else if got.status != 400 {
				t.Errorf("got %d: %s", got.status, got.body)
			}
			l.SetDeadline(time.Now().Add(300 * time.Millisecond))
		}
	})
	t.Run("a very long URL", func(t *testing.T) {
		l := c.dial(t)
		l.say(t, strings.Replace(good, contractPath, contractPath+"?"+strings.Repeat("u", 12<<10), 1))
		c.accepted(t, "12 KiB", hear(t, l), contractPayload, "application/json")
		l.say(t, strings.Replace(good, contractPath, contractPath+"?"+strings.Repeat("u", 12<<10), 1)) // the connection is as good as before
		c.accepted(t, "12 KiB", hear(t, l), contractPayload, "application/json")
		l = c.dial(t)
		go io.WriteString(l, "POST /"+strings.Repeat("u", 64<<10)+" HTTP/1.1\r\n") // which may not be read to its end
		if got, err := l.hear(); err == nil && got.status != 431 && got.status != 414 {
			t.Errorf("got %d: %s", got.status, got.body)
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		response, err := http.Post("http://"+c.at+contractPath, "application/json", strings.NewReader(contractPayload))
		if err == nil {
			response.Body.Close()
			if response.StatusCode != 400 {
				t.Errorf("got %d", response.StatusCode)
			}
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		config := c.tls("http/1.1")
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if conn, err := tls.Dial("tcp", c.at, config); err == nil {
			conn.Close()
			t.Error("it is taken")
		}
	})
}
