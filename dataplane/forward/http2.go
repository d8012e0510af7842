package forward

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Bounds of an HTTP/2 connection.
const (
	maxStreams      = 250      // on the way at once, if the cluster allows as many
	assumedStreams  = 100      // before it has said how many (RFC 9113 section 6.5.2 says no less is recommended)
	streamWindow    = 65535    // octets of an answer's body; what is longer is cut off
	refundAt        = 32 << 10 // octets that were received, after which the connection's window is opened again
	maxContinuation = 8        // frames
	maxIdleFrames   = 10_000   // that are no part of an answer, between two answers
	maxControl      = 1000     // frames that wait to be sent in answer to the cluster's
	maxFrame        = 16 << 10
)

// http2Conn is an HTTP/2 connection (RFC 9113). All is guarded by the Forwarder's mutex, but for what is the reader's or the writer's.
type http2Conn struct {
	*conn
	streams   map[uint32]*stream
	nextID    uint32
	allowed   uint32 // streams
	window    int64  // of the connection, to send
	initial   int64  // of a new stream
	frame     int    // octets of a frame's payload at most
	goneAway  bool
	unsent    []*stream // that the writer has to look at: some of the body is left, or was written just now
	stuck     int       // requests whose bodies wait for a window
	control   []func(*http2.Framer) error
	tableSize uint32 // of the header compression, as the cluster last said
	newTable  bool

	// the writer's
	out     bytes.Buffer
	to      *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	late    settled // answers that were whole before their requests
	token   *string
	fixed   []field

	// the reader's
	from     *http2.Framer
	decoder  *hpack.Decoder
	parsed   parsedHead
	headOf   uint32 // the stream of parsed
	headEnds bool   // and whether the stream ends with it
	refund   uint32
	idle     int
	done     settled
}

// stream is a request on its way.
type stream struct {
	*job
	id       uint32
	offset   int   // of the body, to which it is sent
	window   int64 // to send
	writing  bool  // the writer reads the body now
	head     bool  // the answer's head has come
	ended    bool  // the answer is whole
	response response
	dropped  int // octets of the answer's body
	interim  int
}

// piece is what the writer makes frames of.
type piece struct {
	*stream
	first      bool
	begin, end int
}

func newHTTP2(c *conn) *http2Conn {
	h := &http2Conn{
		conn: c, streams: map[uint32]*stream{}, nextID: 1, allowed: assumedStreams, window: streamWindow, initial: streamWindow, frame: maxFrame,
		done: settled{cluster: c.cluster.name}, late: settled{cluster: c.cluster.name},
	}
	h.to = http2.NewFramer(&h.out, nil)
	h.encoder = hpack.NewEncoder(&h.block)
	h.from = http2.NewFramer(io.Discard, bufio.NewReaderSize(c.net, maxFrame))
	h.from.SetReuseFrames()
	h.from.SetMaxReadFrameSize(maxFrame)
	h.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { h.parsed.field(f) })
	h.decoder.SetMaxStringLength(maxHead)
	h.out.WriteString(http2.ClientPreface)
	_ = h.to.WriteSettings( // a buffer takes it
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHead},
	)
	return h
}

func (h *http2Conn) oldest() time.Time {
	var oldest time.Time
	for _, s := range h.streams {
		if oldest.IsZero() || s.sent.Before(oldest) {
			oldest = s.sent
		}
	}
	return oldest
}

// starved reports whether the cluster lets nothing more be sent, though there is nothing it could be busy with.
func (h *http2Conn) starved() bool { return (h.window <= 0 || h.allowed == 0) && len(h.streams) == 0 }

func (h *http2Conn) capacity() int {
	if h.goneAway || h.window <= 0 || h.nextID > math.MaxInt32-2 || h.stuck > 16 {
		return 0
	}
	return int(min(h.allowed, maxStreams)) - len(h.streams)
}

// write sends what waits, until the connection ends.
func (h *http2Conn) write() error {
	f := h.forwarder
	var jobs []*job
	var pieces []piece
	for {
		f.mu.Lock()
		jobs, pieces = h.gather(time.Now(), jobs[:0], pieces[:0])
		err := h.answerControl()
		f.mu.Unlock()
		if len(h.late.items) > 0 {
			f.acknowledge(&h.late)
		}
		if err != nil {
			return err
		}
		for _, p := range pieces {
			if err := h.frames(p); err != nil {
				return err
			}
		}
		clear(pieces)
		clear(jobs)
		if h.out.Len() == 0 {
			select {
			case <-h.wakeup:
				continue
			case <-h.gone:
				return nil
			}
		}
		_, err = h.net.Write(h.out.Bytes())
		if err != nil {
			return err
		}
		if h.out.Reset(); h.out.Cap() > 1<<20 {
			h.out = bytes.Buffer{}
		}
	}
}

// gather takes what can be sent now. The caller holds the mutex.
func (h *http2Conn) gather(now time.Time, jobs []*job, pieces []piece) ([]*job, []piece) {
	for _, s := range h.unsent {
		s.writing = false
	}
	still := h.unsent[:0]
	size := 0
	for _, s := range h.unsent {
		if h.streams[s.id] != s {
			continue
		}
		if s.ended {
			h.cancel(s, http2.ErrCodeNo)
			h.finish(s, now, &h.late)
			continue
		}
		if s.offset == len(s.item.Body) {
			continue
		}
		if p := h.cut(s, false, maxBatch-size); p.end > p.begin {
			size += p.end - p.begin
			pieces = append(pieces, p)
		}
		still = append(still, s)
	}
	clear(h.unsent[len(still):])
	h.unsent, h.stuck = still, len(still)
	jobs = h.take(now, jobs, func(j *job) {
		s := &stream{job: j, id: h.nextID, window: h.initial}
		h.nextID += 2
		h.streams[s.id] = s
		p := h.cut(s, true, maxBatch)
		pieces = append(pieces, p)
		h.unsent = append(h.unsent, s)
	})
	return jobs, pieces
}

// cut takes as much of a body as the windows allow.
func (h *http2Conn) cut(s *stream, first bool, limit int) piece {
	n := max(0, min(len(s.item.Body)-s.offset, int(min(h.window, s.window)), limit))
	p := piece{s, first, s.offset, s.offset + n}
	h.window -= int64(n)
	s.window -= int64(n)
	s.offset += n
	s.writing = true
	return p
}

// answerControl writes what the cluster's frames want to be answered with. The caller holds the mutex.
func (h *http2Conn) answerControl() error {
	if h.newTable {
		h.newTable = false
		h.encoder.SetMaxDynamicTableSizeLimit(h.tableSize)
	}
	for _, write := range h.control {
		if err := write(h.to); err != nil {
			return err
		}
	}
	clear(h.control)
	h.control = h.control[:0]
	return nil
}

// frames makes the frames of a piece.
func (h *http2Conn) frames(p piece) error {
	e := p.item.Envelope
	if p.first {
		if err := h.headers(p.id, p.job); err != nil {
			return err
		}
		if len(e.Body) == 0 {
			return nil
		}
	}
	for begin := p.begin; begin < p.end; {
		end := min(p.end, begin+h.frame)
		if err := h.to.WriteData(p.id, end == len(e.Body), e.Body[begin:end]); err != nil {
			return err
		}
		begin = end
	}
	return nil
}

// headers writes the head of a request. The fields that all requests have in common are in the compression's table after the first; those
// that differ are kept out of it. The token is in the table too: who can guess parts of it by the length of what is sent must be able to
// put fields of its own into requests of this connection, which nobody but this PoP can.
func (h *http2Conn) headers(id uint32, j *job) error {
	e := j.item.Envelope
	if token := h.endpoint.token.Load(); h.token != token {
		h.token, h.fixed = token, h.fields(*token)
	}
	h.block.Reset()
	put := func(name, value string, once bool) {
		_ = h.encoder.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: once}) // a buffer takes it
	}
	put(":method", "POST", false)
	put(":scheme", "https", false)
	put(":authority", h.name, false)
	put(":path", h.path, false)
	for _, f := range h.fixed {
		put(f.name, f.value, false)
	}
	put("content-type", contentType(e), false)
	put("x-request-id", e.ID, true)
	put("x-request-hash", hex.EncodeToString(e.SHA256[:]), true)
	put("x-isochrone-window", strconv.FormatInt(e.Window, 10), false)
	if parent, ok := j.parent(); ok {
		put("traceparent", string(parent[:]), true)
	}
	put("content-length", strconv.Itoa(len(e.Body)), true)
	block := h.block.Bytes()
	for first := true; first || len(block) > 0; first = false {
		n := min(len(block), maxFrame)
		var err error
		if first {
			err = h.to.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: block[:n], EndStream: len(e.Body) == 0, EndHeaders: n == len(block),
			})
		} else {
			err = h.to.WriteContinuation(id, n == len(block), block[:n])
		}
		if err != nil {
			return err
		}
		block = block[n:]
	}
	return nil
}

// left gives back what was on the way when the connection ended.
func (h *http2Conn) left(now time.Time, done *settled) []*job {
	var left []*job
	for _, s := range h.streams {
		if s.ended {
			h.forwarder.answered(h.endpoint, s.job, s.response, now, done)
			continue
		}
		left = append(left, s.job)
	}
	clear(h.streams)
	return left
}

// reply has a frame written. The caller holds the mutex.
func (h *http2Conn) reply(write func(*http2.Framer) error) error {
	if len(h.control) >= maxControl {
		return errors.New("more to answer than is worth it")
	}
	h.control = append(h.control, write)
	h.signal()
	return nil
}

// cancel ends a stream whose answer is whole, or wrong, before the request is. The caller holds the mutex.
func (h *http2Conn) cancel(s *stream, code http2.ErrCode) {
	id := s.id
	_ = h.reply(func(to *http2.Framer) error { return to.WriteRSTStream(id, code) })
}
