package h3

import (
	"bytes"
	"errors"
	"io"
	"runtime/debug"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// A connection whose client gives up more requests than this, and more than half of them, is closed: it makes work on purpose
// (CVE-2023-44487 has the name rapid reset).
const maxAborted = 200

// maxRemembered is the longest field section that is remembered for a connection.
const maxRemembered = 1 << 10

// buffers are what one request needs, used again by the next.
type buffers struct {
	frames  frames
	in      [4 << 10]byte
	out     []byte
	body    body
	request exchange.Request
	answer  exchange.Answer
}

func newBuffers() *buffers { return &buffers{out: make([]byte, 0, 1<<10)} }

// serve answers one request.
func (s *Server) serve(j job) {
	b := s.buffers.Get().(*buffers)
	defer func() {
		b.request, b.body, b.frames = exchange.Request{}, body{}, frames{}
		b.answer.Reset()
		if cap(b.out) <= 64<<10 {
			s.buffers.Put(b)
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			s.config.Log.Error("panic in an HTTP/3 request", "panic", p, "stack", string(debug.Stack()))
			abort(j.stream, http3.ErrCodeInternalError)
		}
	}()
	now := time.Now()
	_ = j.stream.SetReadDeadline(now.Add(s.config.HeaderTimeout))
	b.frames = frames{from: j.stream, buf: b.in[:]}
	h, err := s.header(j, b)
	if err != nil {
		s.failed(j, b, err)
		return
	}
	b.body = body{frames: &b.frames, stream: j.stream, conn: j.conn, length: h.contentLength, expect: h.expect, patience: s.config.WriteTimeout}
	b.request = exchange.Request{
		Method: h.method, Path: h.path, Query: h.query, Host: h.authority, Proto: http3.NextProtoH3, Header: h.fields,
		ContentLength: h.contentLength, Remote: j.conn.remote, Early: h.early || j.conn.early(), Ticket: j.ticket,
		Body: &b.body, Context: j.stream.Context(),
	}
	s.config.Handler.Answer(&b.request, &b.answer)
	s.send(j, b)
}

// early reports whether the handshake is not complete yet: what came until now was sent in 0-RTT.
func (c *conn) early() bool {
	if c.complete.Load() {
		return false
	}
	select {
	case <-c.HandshakeComplete():
		c.complete.Store(true)
		return false
	default:
		return true
	}
}

// connectionError ends the whole connection.
type connectionError struct {
	code http3.ErrCode
	why  string
}

func (e *connectionError) Error() string { return e.why }

// header reads the header of a request.
func (s *Server) header(j job, b *buffers) (*header, error) {
	for {
		kind, length, err := b.frames.next()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == frameData || forbidden(kind):
			return nil, &connectionError{http3.ErrCodeFrameUnexpected, "a request begins with HEADERS"}
		case kind != frameHeaders: // unknown (RFC 9114 section 9)
			if err := b.frames.skip(length); err != nil {
				return nil, err
			}
			continue
		case length > uint64(s.config.MaxHeaderBytes):
			return nil, errLarge
		}
		if int(length) > len(b.frames.buf) {
			bigger := make([]byte, length)
			b.frames.end = copy(bigger, b.frames.buf[b.frames.start:b.frames.end])
			b.frames.start, b.frames.buf = 0, bigger
		}
		block, err := b.frames.whole(length)
		if err != nil {
			return nil, err
		}
		return s.parsed(j.conn, block)
	}
}

// parsed parses a field section, unless it is the same as the one before.
func (s *Server) parsed(c *conn, block []byte) (*header, error) {
	if known := c.latest.Load(); known.is(block) {
		return known.header, nil
	}
	h, err := parseHeader(block, s.config.MaxHeaderBytes)
	if err == nil && len(block) <= maxRemembered {
		c.latest.Store(&remembered{bytes.Clone(block), h})
	}
	return h, err
}

// failed ends a request whose header did not come, or is not one.
func (s *Server) failed(j job, b *buffers, err error) {
	var fatal *connectionError
	switch {
	case errors.As(err, &fatal):
		j.conn.close(fatal.code, fatal.why)
	case errors.Is(err, errQPACK):
		j.conn.close(http3.ErrCodeQPACKDecompressionFailed, err.Error())
	case errors.Is(err, errLarge):
		b.answer.Status = 431
		s.send(j, b)
	case errors.Is(err, errMalformed):
		abort(j.stream, http3.ErrCodeMessageError)
	case errors.Is(err, errTruncated):
		j.conn.close(http3.ErrCodeFrameError, errTruncated.Error())
	default:
		j.conn.gaveUp()
		abort(j.stream, http3.ErrCodeRequestIncomplete)
	}
}

// gaveUp counts a request that its client has not finished.
func (c *conn) gaveUp() {
	if n := c.aborted.Add(1); n > maxAborted && n > c.answered.Load() {
		c.close(http3.ErrCodeExcessiveLoad, "too many requests are given up")
	}
}

func abort(stream *quic.Stream, code http3.ErrCode) {
	stream.CancelRead(quic.StreamErrorCode(code))
	stream.CancelWrite(quic.StreamErrorCode(code))
}

// send writes the answer and ends the stream.
func (s *Server) send(j job, b *buffers) {
	if b.body.fatal != nil {
		j.conn.close(b.body.fatal.code, b.body.fatal.why)
		return
	}
	if b.answer.Rejected {
		abort(j.stream, http3.ErrCodeRequestRejected)
		return
	}
	j.conn.answered.Add(1)
	j.conn.pause(&b.answer)
	b.out = appendAnswer(b.out[:0], &b.answer, b.request.Method == "HEAD")
	_ = j.stream.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	if _, err := j.stream.Write(b.out); err != nil {
		abort(j.stream, http3.ErrCodeRequestCanceled)
		return
	}
	_ = j.stream.Close()
	j.stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError)) // does nothing when all was read
}

// body is a request's body: the payloads of its DATA frames.
type body struct {
	frames   *frames
	stream   *quic.Stream
	conn     *conn
	length   int64         // that was told, or -1
	got      int64         // so far
	left     uint64        // of the present frame
	expect   bool          // the client waits for 100
	patience time.Duration // with a client that does not read it
	err      error         // of all reads from now on
	fatal    *connectionError
}

// SetReadDeadline implements exchange.Body.
func (b *body) SetReadDeadline(t time.Time) error { return b.stream.SetReadDeadline(t) }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.expect && b.frames.start == b.frames.end {
		section := appendStatus([]byte{0, 0}, 100)
		_ = b.stream.SetWriteDeadline(time.Now().Add(b.patience))
		_, b.err = b.stream.Write(append(appendFrame(nil, frameHeaders, len(section)), section...))
	}
	for b.expect = false; b.left == 0 && b.err == nil; {
		b.err = b.whole(b.nextData())
	}
	if b.err != nil {
		return 0, b.err
	}
	if uint64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.frames.read(p)
	err = b.whole(err)
	b.left -= uint64(n)
	b.got += int64(n)
	if more := b.got - b.length; b.length >= 0 && more > 0 { // of which nothing is handed on, however it arrives
		n -= int(more)
		b.got, err = b.length, exchange.ErrLength
	}
	b.err = err
	return n, err
}

// whole makes an error of the connection of a frame that the end of the stream has cut (RFC 9114 section 7.1).
func (b *body) whole(err error) error {
	if errors.Is(err, errTruncated) {
		b.fatal = &connectionError{http3.ErrCodeFrameError, errTruncated.Error()}
		return b.fatal
	}
	return err
}

// nextData goes to the next DATA frame. It returns io.EOF at the end of the body.
func (b *body) nextData() error {
	for trailers := false; ; {
		kind, length, err := b.frames.next()
		if err == io.EOF && b.length >= 0 && b.got != b.length {
			return exchange.ErrLength
		}
		if err != nil {
			return err
		}
		switch {
		case forbidden(kind) || trailers && (kind == frameData || kind == frameHeaders):
			b.fatal = &connectionError{http3.ErrCodeFrameUnexpected, "a frame that has no place in a request"}
			return b.fatal
		case kind == frameData:
			if b.left = length; length > 0 {
				return nil
			}
			continue
		case kind == frameHeaders: // trailers mean nothing to an intake
			trailers = true
		}
		if err := b.frames.skip(length); err != nil {
			return err
		}
	}
}
