package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// frame is one frame of HTTP/3, as octets.
func frame(kind uint64, payload string) string {
	return string(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload)))) + payload
}

// fields is a field section of names and values.
func fieldSection(pairs ...string) string {
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	for pair := range slices.Chunk(pairs, 2) {
		encoder.WriteField(qpack.HeaderField{Name: pair[0], Value: pair[1]})
	}
	return block.String()
}

// raw3 is a connection of HTTP/3 on which a test says what it wants.
type raw3 struct {
	*quic.Conn
	control *quic.SendStream
	said    func() // called when a request is on its way; nil for nothing
}

func (c *contract) dial3(t *testing.T, control string) *raw3 {
	t.Helper()
	return c.dial3With(t, control, c.tls("h3"))
}

// dial3With returns a connection as soon as something can be sent: in early data, if the TLS configuration has a ticket.
func (c *contract) dial3With(t *testing.T, control string, config *tls.Config) *raw3 {
	t.Helper()
	conn, err := quic.DialAddrEarly(t.Context(), c.at, config, &quic.Config{MaxIdleTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseWithError(0x100, "") })
	l := &raw3{Conn: conn}
	l.control = l.uni(t, control)
	return l
}

// deaf is a socket that hears nothing until it is opened, so that a handshake does not get on.
type deaf struct {
	net.PacketConn
	open chan struct{}
}

// ReadFrom implements net.PacketConn.
func (d deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	<-d.open
	return d.PacketConn.ReadFrom(p)
}

// dial3Early returns a connection whose first request is on its way before the client hears anything. There must be a ticket for early data.
func (c *contract) dial3Early(t *testing.T, control string, config *tls.Config) *raw3 {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ResolveUDPAddr("udp", c.at)
	if err != nil {
		t.Fatal(err)
	}
	client := deaf{socket, make(chan struct{})}
	hear := sync.OnceFunc(func() { close(client.open) })
	transport := &quic.Transport{Conn: client}
	t.Cleanup(func() { hear(); transport.Close(); socket.Close() })
	late := time.AfterFunc(5*time.Second, hear) // if there is no such ticket, the dial waits for the handshake
	defer late.Stop()
	conn, err := transport.DialEarly(t.Context(), at, config, &quic.Config{MaxIdleTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l := &raw3{Conn: conn, said: hear}
	l.control = l.uni(t, control)
	return l
}

// uni opens a stream to the PoP and says something there.
func (l *raw3) uni(t *testing.T, text string) *quic.SendStream {
	t.Helper()
	stream, err := l.OpenUniStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(stream, text)
	return stream
}

// ask sends octets on a request stream, ends it, and returns the status of the answer.
func (l *raw3) ask(ctx context.Context, said string) (status int, body string, err error) {
	stream, err := l.OpenStreamSync(ctx)
	if err != nil {
		return 0, "", err
	}
	stream.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { // which may be told to stop
		io.WriteString(stream, said)
		stream.Close()
		if l.said != nil {
			l.said()
		}
	}()
	answer, err := io.ReadAll(stream)
	if err != nil {
		return 0, "", err
	}
	for len(answer) > 0 {
		kind, n, err := quicvarint.Parse(answer)
		if err != nil {
			return 0, "", err
		}
		length, m, err := quicvarint.Parse(answer[n:])
		if err != nil || uint64(len(answer)-n-m) < length {
			return 0, "", fmt.Errorf("the answer is cut: %q", answer)
		}
		payload := answer[n+m : n+m+int(length)]
		answer = answer[n+m+int(length):]
		switch kind {
		case 0x0:
			body += string(payload)
		case 0x1:
			next := qpack.NewDecoder().Decode(payload)
			for f, err := next(); err == nil; f, err = next() {
				if f.Name == ":status" {
					status, _ = strconv.Atoi(f.Value)
				}
			}
		}
	}
	return status, body, nil
}

// The error codes of RFC 9114 section 8.1, and of RFC 9204 section 6.
const (
	streamCreationError  = 0x103
	closedCriticalStream = 0x104
	frameUnexpected      = 0x105
	frameError           = 0x106
	settingsError        = 0x109
	missingSettings      = 0x10a
	requestIncomplete    = 0x10d
	messageError         = 0x10e
	decompressionFailed  = 0x200
)

// raw3Tests are done by raw3: see there.
func (c *contract) raw3(t *testing.T) {
	pseudo := []string{":method", "POST", ":scheme", "https", ":authority", contractHost, ":path", contractPath}
	regular := []string{"x-api-key", c.key, "content-type", "application/json"}
	head := func(more ...string) string { return frame(0x1, fieldSection(slices.Concat(pseudo, regular, more)...)) }
	length := []string{"content-length", strconv.Itoa(len(contractPayload))}
	data := frame(0x0, contractPayload)
	good := head() + data
	settings := "\x00" + frame(0x4, "")
	grease := frame(0x21+0x1f*7, "what is this?")
	var octets strings.Builder
	for i := range len(contractPayload) {
		octets.WriteString(frame(0x0, contractPayload[i:i+1]) + frame(0x0, "") + grease)
	}

	for name, said := range map[string]string{
		"as it should be":                   good,
		"with a length":                     head(length...) + data,
		"unknown frames":                    grease + head() + grease + data + grease,
		"one octet to a frame":              head() + octets.String(),
		"trailers":                          good + frame(0x1, fieldSection("x-checksum", "1")),
		"unknown frames after trailers":     good + frame(0x1, fieldSection("x-checksum", "1")) + grease,
		"a Host that is the authority":      head("host", contractHost) + data,
		"an integer with more octets":       "\x40\x01" + head()[1:] + data,
		"a cookie in two fields":            head("cookie", "a=b", "cookie", "c=d") + data,
		"a field without a value":           head("x-empty", "") + data,
		"a body of a frame of another kind": head() + grease + data,
	} {
		t.Run(name, func(t *testing.T) {
			status, body, err := c.dial3(t, settings).ask(t.Context(), said)
			if err != nil || status != 202 {
				t.Fatalf("got %d %s, %v", status, body, err)
			}
			c.accepted(t, name, answered{status: status, body: body, header: map[string][]string{
				"Content-Type": {"application/json"}, "X-Isochrone-Pop": {"sin1"}}}, contractPayload, "application/json")
		})
	}

	with := func(change func(all []string) []string) string {
		return frame(0x1, fieldSection(change(slices.Concat(pseudo, regular))...)) + data
	}
	for name, said := range map[string]string{
		"a name in capitals":          head("X-Other", "1") + data,
		"a name with a space":         head("x other", "1") + data,
		"no path":                     with(func(all []string) []string { return slices.Concat(all[:6], all[8:]) }),
		"an empty path":               with(func(all []string) []string { all[7] = ""; return all }),
		"a path without a slash":      with(func(all []string) []string { all[7] = "api"; return all }),
		"no method":                   with(func(all []string) []string { return all[2:] }),
		"no scheme":                   with(func(all []string) []string { return slices.Concat(all[:2], all[4:]) }),
		"no authority":                with(func(all []string) []string { return slices.Concat(all[:4], all[6:]) }),
		"two methods":                 with(func(all []string) []string { return append([]string{":method", "POST"}, all...) }),
		"a pseudo field of an answer": with(func(all []string) []string { return append([]string{":status", "200"}, all...) }),
		"a pseudo field at the end":   with(func(all []string) []string { return append(all[2:], all[:2]...) }),
		"Connection":                  head("connection", "close") + data,
		"Transfer-Encoding":           head("transfer-encoding", "chunked") + data,
		"TE with more than trailers":  head("te", "gzip") + data,
		"an end of line in a value":   head("x-other", "a\r\nb: c") + data,
		"a NUL in a value":            head("x-other", "a\x00b") + data,
		"Host that is another":        head("host", "www.example.net") + data,
		"two lengths":                 head("content-length", "44", "content-length", "45") + data,
		"a length that is none":       head("content-length", "+44") + data,
		"a longer body than is told":  head("content-length", "10") + data,
		"a shorter body than is told": head("content-length", "100") + data,
		"nothing":                     "",
	} {
		t.Run(name, func(t *testing.T) {
			l := c.dial3(t, settings)
			status, body, err := l.ask(t.Context(), said)
			var reset *quic.StreamError
			switch {
			case errors.As(err, &reset) && reset.Remote && slices.Contains([]quic.StreamErrorCode{messageError, requestIncomplete}, reset.ErrorCode):
			case err == nil && status == 400: // RFC 9114 section 4.1.2 allows an answer
			default:
				t.Errorf("got %d %s, %v", status, body, err)
			}
			if status, body, err := l.ask(t.Context(), good); err != nil || status != 202 {
				t.Errorf("on the same connection, after it: got %d %s, %v", status, body, err)
			}
		})
	}

	for name, test := range map[string]struct {
		control, uni, said string
		code               quic.ApplicationErrorCode
	}{
		"a frame that is cut":      {settings, "", good[:len(good)-5], frameError}, // RFC 9114 section 7.1
		"half a header":            {settings, "", good[:20], frameError},
		"a type alone":             {settings, "", "\x01", frameError},
		"DATA first":               {settings, "", data + good, frameUnexpected},
		"SETTINGS on a request":    {settings, "", frame(0x4, "") + good, frameUnexpected},
		"GOAWAY on a request":      {settings, "", head() + frame(0x7, "\x00") + data, frameUnexpected},
		"PUSH_PROMISE of a client": {settings, "", frame(0x5, "\x00") + good, frameUnexpected},
		"a frame of HTTP/2":        {settings, "", frame(0x8, "\x00") + good, frameUnexpected},
		"HEADERS after trailers":   {settings, "", good + frame(0x1, fieldSection("a", "b")) + frame(0x1, fieldSection("a", "b")), frameUnexpected},
		"DATA after trailers":      {settings, "", good + frame(0x1, fieldSection("a", "b")) + data, frameUnexpected},
		"a reference to a table":   {settings, "", frame(0x1, "\x05\x00\x80") + data, decompressionFailed},
		"no QPACK":                 {settings, "", frame(0x1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") + data, decompressionFailed},
		"no SETTINGS":              {"\x00" + frame(0x7, "\x00"), "", "", missingSettings},
		"a setting of HTTP/2":      {"\x00" + frame(0x4, "\x02\x00"), "", "", settingsError},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.dial3(t, test.control)
			if test.uni != "" {
				l.uni(t, test.uni)
			}
			if test.said != "" {
				status, _, err := l.ask(t.Context(), test.said)
				if err == nil && status == 202 && strings.HasSuffix(name, "after trailers") { // what comes then need not be read
					return
				}
			}
			l.closes(t, test.code)
		})
	}

	// What comes on these streams after the settings need not be read: then it is as if it were not there.
	for name, test := range map[string]struct {
		control, uni string
		code         quic.ApplicationErrorCode
	}{
		"two SETTINGS":                  {settings + frame(0x4, ""), "", frameUnexpected},
		"a setting twice":               {"\x00" + frame(0x4, "\x06\x01\x06\x01"), "", settingsError},
		"DATA on the control stream":    {settings + frame(0x0, "x"), "", frameUnexpected},
		"HEADERS on the control stream": {settings + head(), "", frameUnexpected},
		"a second control stream":       {settings, settings, streamCreationError},
		"a push stream":                 {settings, "\x01", streamCreationError},
		"the control stream ends":       {settings, "", closedCriticalStream},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.dial3(t, test.control)
			if test.uni != "" {
				l.uni(t, test.uni)
			}
			if name == "the control stream ends" {
				l.control.Close()
			}
			for range 2 {
				if status, body, err := l.ask(t.Context(), good); err != nil {
					l.closes(t, test.code)
				} else if status != 202 {
					t.Errorf("got %d %s", status, body)
				}
			}
		})
	}
	t.Run("streams and settings that are unknown", func(t *testing.T) {
		l := c.dial3(t, "\x00"+frame(0x4, string(quicvarint.Append(nil, 0x21+0x1f*3))+"\x01")+grease+frame(0xd, "\x05")+frame(0x7, "\x00"))
		l.uni(t, string(quicvarint.Append(nil, 0x21+0x1f*5))+"anything").Close()
		l.uni(t, "\x02")
		l.uni(t, "\x03")
		if status, body, err := l.ask(t.Context(), good); err != nil || status != 202 {
			t.Errorf("got %d %s, %v", status, body, err)
		}
	})
}

// closes waits until the PoP has closed the connection with a code.
func (l *raw3) closes(t *testing.T, code quic.ApplicationErrorCode) {
	t.Helper()
	select {
	case <-l.Context().Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the connection stays open")
	}
	var closed *quic.ApplicationError
	if err := context.Cause(l.Context()); !errors.As(err, &closed) || !closed.Remote || closed.ErrorCode != code {
		t.Errorf("got %v, want the code %#x", err, uint64(code))
	}
}
