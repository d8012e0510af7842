package forward

import (
	"net"
	"sync/atomic"
	"time"
)

// coalesced is the length up to which a body is copied behind its head, so that many requests are one piece of memory. A longer one is
// written from where it is.
const coalesced = 8 << 10

// http1 is an HTTP/1.1 connection with pipelined requests. RFC 9112 section 9.3.2 wants no POST behind another before its outcome is
// known, unless the client knows that it may be repeated (RFC 9110 section 9.2.2): envelopes may, since clusters know them by id and hash.
// So that a cluster whose server cannot do it is not troubled, the first request goes alone, and the depth grows with each answer; it goes
// back to one for a while when connections end in the middle of pipelines. An answer that is slow has nothing more sent behind it.
type http1 struct {
	*conn
	reader  *responseReader
	written atomic.Int64  // requests that are written whole
	flushed chan struct{} // signalled after each write
	seen    int64         // answers that were settled; the reader's
	buffer  []byte
	batch   []response
	done    settled
}

func newHTTP1(c *conn) *http1 {
	h := &http1{conn: c, reader: newResponseReader(c.net), flushed: make(chan struct{}, 1), done: settled{cluster: c.cluster.name}}
	h.reader.before = h.settle
	return h
}

// write sends what waits, until the connection ends.
func (h *http1) write() error {
	f := h.forwarder
	var jobs []*job
	for {
		now := time.Now()
		f.mu.Lock()
		jobs = h.take(now, jobs[:0], h.outstanding.push)
		f.mu.Unlock()
		if len(jobs) == 0 {
			select {
			case <-h.wakeup:
				continue
			case <-h.gone:
				return nil
			}
		}
		if err := h.send(jobs); err != nil {
			return err
		}
		h.written.Add(int64(len(jobs)))
		clear(jobs)
		select {
		case h.flushed <- struct{}{}:
		default:
		}
	}
}

// send writes requests, all at once where bodies are short.
func (h *http1) send(jobs []*job) error {
	begin := *h.head.Load()
	b := h.buffer[:0]
	for _, j := range jobs {
		e := j.item.Envelope
		b = appendHead1(b, begin, j)
		if len(e.Body) <= coalesced {
			b = append(b, e.Body...)
			continue
		}
		pieces := net.Buffers{b, e.Body}
		if _, err := pieces.WriteTo(h.net); err != nil {
			return err
		}
		b = b[:0]
	}
	if h.buffer = b[:0]; len(b) == 0 {
		return nil
	}
	_, err := h.net.Write(b)
	return err
}

// read reads answers until the connection ends.
func (h *http1) read() error {
	for {
		r, err := h.reader.next()
		if err != nil {
			if len(h.batch) > 0 {
				if err := h.settle(); err != nil {
					return err
				}
			}
			return err
		}
		h.batch = append(h.batch, r)
		if r.last || len(h.batch) == maxDepth {
			if err := h.settle(); err != nil {
				return err
			}
		}
		if r.last {
			return errLast
		}
	}
}

// settle settles the answers that were read. It is called before the reader waits for more.
func (h *http1) settle() error {
	if len(h.batch) == 0 {
		return nil
	}
	e, f := h.endpoint, h.forwarder
	batch := h.batch
	h.batch = h.batch[:0]
	for h.seen+int64(len(batch)) > h.written.Load() {
		// An answer to what is not written whole, or the writer has not come to say so yet. Until it has written, the memory of the
		// body is its own.
		f.mu.Lock()
		asked := h.outstanding.n
		f.mu.Unlock()
		if asked < len(batch) {
			return errUnsolicited
		}
		select {
		case <-h.flushed:
			continue
		case <-h.ended:
		}
		break
	}
	h.seen += int64(len(batch))
	now := time.Now()
	f.mu.Lock()
	defer func() {
		f.mu.Unlock()
		f.acknowledge(&h.done)
	}()
	if first := h.outstanding.first; first != nil {
		worked := now.Sub(first.sent.Add(e.rtt))
		if h.answers > 0 {
			worked = min(worked, now.Sub(h.last))
		}
		e.service += (max(0, worked)/time.Duration(len(batch)) - e.service) / 8
	}
	for _, r := range batch {
		if h.outstanding.n == 0 {
			return errUnsolicited
		}
		h.answers++
		if r.last {
			h.closing = true
		} else if e.depth < maxDepth {
			e.depth *= 2
		}
		f.answered(e, h.outstanding.pop(), r, now, &h.done)
	}
	h.last = now
	if h.capacity(now) > 0 && e.queue.n > 0 {
		h.signal()
	}
	e.wake(now)
	return nil
}
