package h3

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
)

// maxIdleWorkers is how many goroutines wait for requests.
const maxIdleWorkers = 512

// Server serves connections that somebody else accepts. Make it by New.
type Server struct {
	config  Config
	shedder exchange.Shedder // the handler, or nil
	jobs    chan job
	idle    atomic.Int64
	active  atomic.Int64 // requests
	workers sync.WaitGroup
	buffers sync.Pool // of *buffers

	grace, hard         context.Context // end when Shutdown begins, and when all must go
	beginGrace, endHard context.CancelFunc

	dismissEach time.Duration
	tend        sync.Once

	mu    sync.Mutex
	ended bool           // no connection is taken any more
	conns sync.WaitGroup // that are served
}

// Config is what a server needs. Zero values stand for the defaults.
type Config struct {
	Handler        exchange.Handler // is asked first under load, if it is a Shedder
	Overload       *overload.Overload
	MaxHeaderBytes int           // of a request's header, as RFC 9114 section 4.2.2 counts; default 16 KiB
	HeaderTimeout  time.Duration // to receive a header, from the first octet of the stream; default 5 s
	WriteTimeout   time.Duration // to hand over an answer; default 10 s
	MaxRequests    int           // at a time in all, half for connections with few; others are rejected; default 32768
	Log            *slog.Logger  // of panics; nil for none
}

type job struct {
	conn   *conn
	stream *quic.Stream
	ticket overload.Ticket // if it was let in by the Shedder
}

// New returns a server.
func New(c Config) *Server {
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = 16 << 10
	}
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = 5 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 10 * time.Second
	}
	if c.MaxRequests == 0 {
		c.MaxRequests = 32 << 10
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, jobs: make(chan job), dismissEach: dismissEach, buffers: sync.Pool{New: func() any { return newBuffers() }}}
	if c.Overload != nil {
		s.shedder, _ = c.Handler.(exchange.Shedder)
	}
	s.grace, s.beginGrace = context.WithCancel(context.Background())
	s.hard, s.endHard = context.WithCancel(context.Background())
	return s
}

// conn is one connection.
type conn struct {
	*quic.Conn
	remote   netip.AddrPort
	control  *quic.SendStream
	complete atomic.Bool // the handshake is
	latest   atomic.Pointer[remembered]
	active   *atomic.Int64 // requests that were accepted and have not ended
	answered atomic.Int64
	aborted  atomic.Int64 // requests that the client has given up before they had a header
	turn     atomic.Int64 // the overload.Turn until which no stream is accepted
	deaf     atomic.Int64 // until when none is, in nanoseconds since began
	began    time.Time
	glance   *glance // of the goroutine that accepts; nil until it is needed
}

// ServeConn serves one connection, which may not have finished its handshake, until it ends. Active counts its requests from the moment that they are
// accepted, before the Handler has heard of them.
func (s *Server) ServeConn(c *quic.Conn, active *atomic.Int64) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return
	}
	s.conns.Add(1)
	s.mu.Unlock()
	defer s.conns.Done()
	s.tend.Do(func() { s.conns.Go(s.dismiss) })
	served := &conn{Conn: c, active: active, began: time.Now()}
	if at, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		served.remote = at.AddrPort()
	} else {
		served.remote, _ = netip.ParseAddrPort(c.RemoteAddr().String())
	}
	var err error
	if served.control, err = c.OpenUniStream(); err == nil {
		_, err = served.control.Write(s.settings())
	}
	if err != nil {
		served.close(http3.ErrCodeInternalError, "")
		return
	}
	s.conns.Go(served.readControl)
	s.accept(served)
}

// settings is the beginning of our control stream.
func (s *Server) settings() []byte {
	const controlStream, maxFieldSection = 0x0, 0x6
	settings := quicvarint.Append(quicvarint.Append(nil, maxFieldSection), uint64(s.config.MaxHeaderBytes))
	buf := appendFrame([]byte{controlStream}, frameSettings, len(settings))
	return append(buf, settings...)
}

// accept takes requests until the connection ends. When the server is to end, the client is told which requests it may send again. To
// close the connection once the others are answered is up to the client, and to who accepted it.
func (s *Server) accept(c *conn) {
	next := quic.StreamID(0)
	for {
		stream, err := c.AcceptStream(s.grace)
		if err != nil {
			break
		}
		next = stream.StreamID() + 4
		j := job{conn: c, stream: stream}
		if !s.weigh(&j) {
			s.dispatch(j)
		}
		s.rest(c)
	}
	if c.Context().Err() != nil {
		return
	}
	_, _ = c.control.Write(quicvarint.Append(appendFrame(nil, frameGoAway, quicvarint.Len(uint64(next))), uint64(next)))
	for {
		stream, err := c.AcceptStream(s.hard)
		if err != nil {
			c.close(http3.ErrCodeNoError, "")
			return
		}
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
	}
}

func (c *conn) close(code http3.ErrCode, why string) {
	_ = c.CloseWithError(quic.ApplicationErrorCode(code), why)
}

// fewRequests is how many a connection may have at a time, whatever others have.
const fewRequests = 8

// dispatch gives a request to a goroutine that waits for one, or to a new one. Each has a stack and buffers, which nobody needs a key
// for, so that there is a bound to them all beside the one on each connection. The second half of it is for those with few requests:
// clients with many cannot take it from them.
func (s *Server) dispatch(j job) {
	all, own, most := s.active.Add(1), j.conn.active.Add(1), int64(s.config.MaxRequests)
	if all > most || all > most/2 && own > fewRequests {
		s.done(j)
		abort(j.stream, http3.ErrCodeRequestRejected)
		return
	}
	select {
	case s.jobs <- j:
	default:
		s.workers.Go(func() { s.work(j) })
	}
}

func (s *Server) done(j job) {
	j.conn.active.Add(-1)
	s.active.Add(-1)
}

func (s *Server) work(j job) {
	for {
		s.serve(j)
		s.done(j)
		j = job{} // hold no connection while idle
		if s.idle.Add(1) > maxIdleWorkers {
			s.idle.Add(-1)
			return
		}
		next, ok := <-s.jobs
		s.idle.Add(-1)
		if !ok || next.conn == nil {
			return
		}
		j = next
	}
}

// dismissEach is how often half of the goroutines that wait for requests are ended, so that a burst leaves nothing behind.
const dismissEach = 5 * time.Second

// dismiss ends goroutines that are not needed, until the server ends.
func (s *Server) dismiss() {
	look := time.NewTicker(s.dismissEach)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-s.grace.Done():
			return
		}
		for range (s.idle.Load() + 1) / 2 {
			select {
			case s.jobs <- job{}: // none
			default:
			}
		}
	}
}

// Shutdown lets the requests in flight end and refuses new ones in a way that tells clients to send them elsewhere (RFC 9114 section
// 5.2). It returns when all connections have ended, which it enforces when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	s.mu.Unlock()
	s.beginGrace()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.conns.Wait()
		if first {
			close(s.jobs)
		}
		s.workers.Wait()
	}()
	select {
	case <-done:
		s.endHard()
		return nil
	case <-ctx.Done():
		s.endHard()
		<-done
		return ctx.Err()
	}
}

// Close ends everything at once.
func (s *Server) Close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ended) // says that it was not waited for
}

// readControl reads the client's unidirectional streams until it has its settings. What is sent on them later means nothing to this
// server, and stays where it is: flow control bounds it.
func (c *conn) readControl() {
	const controlStream, pushStream, encoderStream, decoderStream = 0, 1, 2, 3
	seen := map[uint64]bool{}
	for {
		stream, err := c.AcceptUniStream(c.Context())
		if err != nil {
			return
		}
		f := frames{from: stream, buf: make([]byte, 1024)}
		kind, err := f.integer()
		if err != nil {
			continue // reset before it said what it is
		}
		switch kind {
		case controlStream, encoderStream, decoderStream:
			if seen[kind] {
				c.close(http3.ErrCodeStreamCreationError, "a stream that there is one of")
				return
			}
			seen[kind] = true
		case pushStream:
			c.close(http3.ErrCodeStreamCreationError, "clients do not push")
			return
		default: // RFC 9114 section 6.2.3
			stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeStreamCreationError))
		}
		if kind != controlStream {
			continue
		}
		if code, err := readSettings(&f); err != nil {
			c.close(code, err.Error())
		}
		return
	}
}

// readSettings reads the first frame of a control stream (RFC 9114 section 6.2.1).
func readSettings(f *frames) (http3.ErrCode, error) {
	kind, length, err := f.next()
	switch {
	case err != nil:
		return http3.ErrCodeClosedCriticalStream, errors.New("the control stream ended")
	case kind != frameSettings:
		return http3.ErrCodeMissingSettings, errors.New("the first frame is not SETTINGS")
	case length > uint64(len(f.buf)):
		return http3.ErrCodeExcessiveLoad, errors.New("too many settings")
	}
	payload, err := f.whole(length)
	if err != nil {
		return http3.ErrCodeFrameError, errors.New("SETTINGS is cut off")
	}
	for len(payload) > 0 {
		id, n, ok := varint(payload)
		_, m, also := varint(payload[n:])
		if !ok || !also {
			return http3.ErrCodeFrameError, errors.New("SETTINGS is malformed")
		}
		if id >= 0x2 && id <= 0x5 { // of HTTP/2 (RFC 9114 section 7.2.4.1)
			return http3.ErrCodeSettingsError, errors.New("a setting of HTTP/2")
		}
		payload = payload[n+m:]
	}
	return 0, nil
}
