package intakeclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http/httpguts"
)

// maxEarlyBody is the largest body that is sent in 0-RTT: what fits the first flight.
const maxEarlyBody = 8 << 10

// quicConn is a connection of HTTP/3 whose handshake was not complete when it was made: it resumes a session that allows early data
// (0-RTT, RFC 9001 section 4.6). Package http3 waits for the handshake before it sends a POST, so the request that the connection was made
// for is written here; it gets the connection afterwards.
type quicConn struct {
	*quic.Conn
	first atomic.Pointer[quic.Stream] // which that request is sent on; nil once it was taken

	mu    sync.Mutex
	after *http3.ClientConn // once the handshake is complete
}

// mayBeEarly reports whether a request may be sent in 0-RTT: an attacker can send it again, so it has an Idempotency-Key.
func mayBeEarly(r *Request) bool {
	if r.Header.Get("Idempotency-Key") == "" || len(r.Body) > maxEarlyBody {
		return false
	}
	for name, values := range r.Header {
		for _, value := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				return false // http3 says what is wrong with it
			}
		}
	}
	return true
}

// dialEarly makes a connection, which may be used at once if a session can be resumed.
func (c *Client) dialEarly(ctx context.Context, udp *quic.Transport, to target, config *quic.Config) (*quicConn, error) {
	release := func() {}
	if g, ok := udp.Conn.(*gate); ok && c.sessions.early(to.name) {
		release = g.hold()
	}
	defer release()
	conn, err := udp.DialEarly(ctx, net.UDPAddrFromAddrPort(to.addr), c.tls(to, http3.NextProtoH3), config)
	if err != nil {
		return nil, err
	}
	made := &quicConn{Conn: conn}
	select {
	case <-conn.HandshakeComplete():
	default:
		if stream, err := conn.OpenStream(); err == nil { // else it is as if there were no early data
			made.first.Store(stream)
		}
	}
	return made, nil
}

// RoundTrip implements http.RoundTripper, after the handshake. If the server has refused early data, what was sent is as if it had not been.
func (c *quicConn) RoundTrip(r *http.Request) (*http.Response, error) {
	client, err := c.client(r.Context())
	if err != nil {
		return nil, err
	}
	return client.RoundTrip(r)
}

func (c *quicConn) client(ctx context.Context) (*http3.ClientConn, error) {
	select {
	case <-c.HandshakeComplete():
	case <-c.Context().Done():
		return nil, context.Cause(c.Context())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after == nil {
		if !c.ConnectionState().Used0RTT {
			if _, err := c.NextConnection(ctx); err != nil {
				return nil, err
			}
		}
		c.after = (&http3.Transport{}).NewClientConn(c.Conn)
	}
	return c.after, nil
}

// errLater says that a request was not looked at, and should be sent again when the handshake is complete (RFC 8470 section 5.2).
var errLater = errors.New("the server takes no early data")

// sendEarly sends a request in 0-RTT and reads the answer.
func (c *quicConn) sendEarly(r *http.Request, body []byte) (*http.Response, error) {
	stream := c.first.Swap(nil)
	if stream == nil {
		return nil, errLater
	}
	defer context.AfterFunc(r.Context(), func() {
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	})()
	_, err := stream.Write(appendRequest(nil, r, body))
	if err == nil {
		err = stream.Close()
	}
	var response *http.Response
	if err == nil || !errors.Is(err, quic.Err0RTTRejected) { // an answer may come before the request has gone
		var readErr error
		if response, readErr = readResponse(stream); readErr == nil {
			err = nil
		} else if err == nil {
			err = readErr
		}
	}
	switch {
	case errors.Is(err, quic.Err0RTTRejected):
		return nil, errLater
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		return nil, err
	case response.StatusCode == http.StatusTooEarly:
		return nil, errLater
	}
	state := c.ConnectionState().TLS
	response.TLS = &state
	return response, nil
}

// The frames of RFC 9114 section 7.2 that a request and its answer are made of.
const (
	frameData    = 0x0
	frameHeaders = 0x1
)

// appendRequest appends a request as it stands on its stream: its header, packed with the static table alone, and its body.
func appendRequest(buf []byte, r *http.Request, body []byte) []byte {
	var section strings.Builder
	encoder := qpack.NewEncoder(&section)
	write := func(name, value string) {
		_ = encoder.WriteField(qpack.HeaderField{Name: name, Value: value}) // a strings.Builder takes everything
	}
	write(":method", r.Method)
	write(":scheme", "https")
	write(":authority", r.URL.Host)
	write(":path", r.URL.RequestURI())
	for name, values := range r.Header {
		switch name = strings.ToLower(name); name {
		case "host", "content-length", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade": // RFC 9114 section 4.2
			continue
		}
		for _, value := range values {
			write(name, value)
		}
	}
	write("content-length", strconv.Itoa(len(body)))
	buf = quicvarint.Append(quicvarint.Append(buf, frameHeaders), uint64(section.Len()))
	buf = append(buf, section.String()...)
	if len(body) > 0 {
		buf = append(quicvarint.Append(quicvarint.Append(buf, frameData), uint64(len(body))), body...)
	}
	return buf
}

// Bounds of an answer to early data.
const (
	maxAnswerHeader = 16 << 10 // octets of a header as it is packed
	maxAnswerFields = 128
	maxSkipped      = 64 << 10 // octets of frames that mean nothing here, in all
	maxInterim      = 8        // answers 1xx
)

var errAnswer = errors.New("the answer is malformed")

// readResponse reads an answer to the end of its stream, or to maxAnswer octets of its body, which is then in memory.
func readResponse(stream io.Reader) (*http.Response, error) {
	in := bufio.NewReaderSize(stream, 2<<10)
	frames := quicvarint.NewReader(in)
	var response *http.Response
	body, skipped, interim := []byte(nil), uint64(0), 0
	for {
		kind, err := quicvarint.Read(frames)
		if err == io.EOF && response != nil {
			break
		}
		length, lengthErr := uint64(0), error(nil)
		if err == nil {
			length, lengthErr = quicvarint.Read(frames)
		}
		if err = errors.Join(err, lengthErr); err != nil {
			return nil, cut(err)
		}
		switch {
		case kind == frameHeaders && response == nil:
			if length > maxAnswerHeader {
				return nil, fmt.Errorf("%w: a header of %d octets", errAnswer, length)
			}
			section := make([]byte, length)
			if _, err := io.ReadFull(in, section); err != nil {
				return nil, cut(err)
			}
			if response, err = parseResponse(section); err != nil {
				return nil, err
			}
			if response.StatusCode < 200 {
				if interim++; interim > maxInterim {
					return nil, fmt.Errorf("%w: too many interim ones", errAnswer)
				}
				response = nil
			}
		case kind == frameData && response == nil:
			return nil, fmt.Errorf("%w: a body without a header", errAnswer)
		case kind == frameData:
			before := len(body)
			body = append(body, make([]byte, min(length, uint64(maxAnswer-before)))...)
			if _, err := io.ReadFull(in, body[before:]); err != nil {
				return nil, cut(err)
			}
			if len(body) == maxAnswer {
				return withBody(response, body, false)
			}
		default: // trailers, and what is unknown (RFC 9114 section 9)
			if skipped += length; length > maxSkipped || skipped > maxSkipped {
				return nil, fmt.Errorf("%w: too much that is none", errAnswer)
			}
			if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
				return nil, cut(err)
			}
		}
	}
	return withBody(response, body, true)
}

// cut is what the end of a stream inside an answer means.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", errAnswer)
	}
	return err
}

func withBody(r *http.Response, body []byte, whole bool) (*http.Response, error) {
	if told := r.Header.Get("Content-Length"); whole && told != "" && told != strconv.Itoa(len(body)) {
		return nil, fmt.Errorf("%w: its Content-Length is %q, and %d octets came", errAnswer, told, len(body))
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
	return r, nil
}

// parseResponse reads a field section (RFC 9114 section 4.3.2).
func parseResponse(section []byte) (*http.Response, error) {
	r := &http.Response{Proto: "HTTP/3.0", ProtoMajor: 3, Header: http.Header{}}
	next, fields := qpack.NewDecoder().Decode(section), 0
	for {
		f, err := next()
		if err == io.EOF {
			break
		}
		if fields++; err != nil || fields > maxAnswerFields {
			return nil, fmt.Errorf("%w: its header cannot be read", errAnswer)
		}
		if f.IsPseudo() {
			status, err := strconv.ParseUint(f.Value, 10, 10)
			if f.Name != ":status" || len(f.Value) != 3 || err != nil || status < 100 || r.StatusCode != 0 || len(r.Header) > 0 {
				return nil, fmt.Errorf("%w: its header has %q", errAnswer, f.Name)
			}
			r.StatusCode, r.Status = int(status), f.Value+" "+http.StatusText(int(status))
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name || !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, fmt.Errorf("%w: its header has a field that is none", errAnswer)
		}
		r.Header.Add(f.Name, f.Value)
	}
	if r.StatusCode == 0 {
		return nil, fmt.Errorf("%w: it has no status", errAnswer)
	}
	return r, nil
}
