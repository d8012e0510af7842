package h3

import (
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
)

// peekTimeout is how long the beginning of a stream is waited for where it would be known at a glance.
const peekTimeout = time.Millisecond

// glance is what the goroutine that accepts a connection's streams needs to refuse requests itself.
type glance struct {
	in      [maxRemembered + 8]byte
	rest    [2 << 10]byte
	out     []byte
	request exchange.Request
	answer  exchange.Answer
}

// weigh has a request refused, or let in, before a goroutine and buffers are given to it: when its header is the same, octet for octet, as
// the one before on its connection, as it is with most clients. A refused one costs a fifth of what it would cost otherwise.
func (s *Server) weigh(j *job) (refused bool) {
	known := j.conn.latest.Load()
	if s.shedder == nil || known == nil || !s.config.Overload.Full() {
		return false
	}
	g := j.conn.glance
	if g == nil {
		g = &glance{}
		j.conn.glance = g
	}
	want := append(appendFrame(g.in[:0], frameHeaders, len(known.block)), known.block...)
	_ = j.stream.SetReadDeadline(time.Now().Add(peekTimeout))
	got := g.rest[:len(want)]
	if n, _ := j.stream.Peek(got); n < len(want) || string(got) != string(want) {
		return false
	}
	h := known.header
	g.request = exchange.Request{
		Method: h.method, Path: h.path, Query: h.query, Host: h.authority, Proto: http3.NextProtoH3, Header: h.fields,
		ContentLength: h.contentLength, Remote: j.conn.remote, Early: h.early || j.conn.early(), Context: j.conn.Context(),
	}
	g.answer.Reset()
	if !s.shedder.Shed(&g.request, &g.answer) {
		j.ticket = g.request.Ticket
		return false
	}
	g.out = appendAnswer(g.out[:0], &g.answer, h.method == "HEAD")
	if err := j.stream.TryWriteAll(g.out); err != nil {
		abort(j.stream, http3.ErrCodeRequestRejected)
		return true
	}
	_ = j.stream.Close()
	_, _ = j.stream.Read(g.rest[:]) // a short request is here whole: then the client need not be told to stop
	j.stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	j.conn.answered.Add(1)
	j.conn.pause(&g.answer)
	return true
}

// pause has no stream be accepted for as long as an answer says: what the client sends on new ones stays within its flow control.
func (c *conn) pause(a *exchange.Answer) {
	if a.Turn > 0 {
		c.turn.Store(int64(a.Turn))
	}
	if a.Pause > 0 {
		c.deaf.Store(int64(time.Since(c.began) + a.Pause))
	}
}

// rest waits until a pause is over, the connection has ended, or the server ends.
func (s *Server) rest(c *conn) {
	if turn := c.turn.Load(); turn > 0 && s.config.Overload != nil {
		s.config.Overload.Await(overload.Turn(turn), c.Context().Done(), s.grace.Done())
		c.turn.CompareAndSwap(turn, 0)
	}
	deaf := c.deaf.Load()
	if deaf == 0 {
		return
	}
	if long := time.Duration(deaf) - time.Since(c.began); long > 0 {
		timer := time.NewTimer(long)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.Context().Done():
		case <-s.grace.Done():
		}
	}
	c.deaf.CompareAndSwap(deaf, 0)
}
