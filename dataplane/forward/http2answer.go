package forward

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/net/http2"
)

// ending ends a connection on which nothing is on the way and nothing may follow.
func (h *http2Conn) ending() error {
	if h.goneAway && len(h.streams) == 0 {
		return errLast
	}
	return nil
}

// goAway places those requests anew that the cluster says it has not looked at. A cluster that says so before it has answered anything
// would say so for ever.
func (h *http2Conn) goAway(last uint32, now time.Time) error {
	h.goneAway, h.closing = true, true
	var unseen []*job
	for id, s := range h.streams {
		if id > last && !s.ended {
			h.drop(s)
			unseen = append(unseen, s.job)
		}
	}
	useless := h.answers == 0 && len(unseen) > 0
	if useless {
		h.forwarder.failure(h.endpoint, "went away before it answered", now)
	} else {
		h.endpoint.spared()
	}
	for _, j := range unseen {
		if useless {
			j.tried |= h.bit
		}
		h.forwarder.place(j, now)
	}
	return h.ending()
}

// drop forgets a stream.
func (h *http2Conn) drop(s *stream) {
	delete(h.streams, s.id)
	h.inFlight--
	h.forwarder.inFlight--
}

func (h *http2Conn) takeHead(now time.Time) error {
	p := &h.parsed
	s := h.streams[h.headOf]
	if h.headOf%2 == 0 || h.headOf >= h.nextID {
		return fmt.Errorf("%w: an answer that nothing was asked for", errMalformed)
	}
	if s == nil || s.ended {
		return nil // canceled by us
	}
	switch {
	case p.err != nil, s.head && (p.pseudo > 0 || !h.headEnds), !s.head && p.pseudo == 0, p.status/100 == 1 && !s.head && h.headEnds, p.status == 101:
		return h.broken(s, "answered with a malformed head", now)
	case !s.head && p.status/100 == 1:
		if s.interim++; s.interim > maxInterim {
			return h.broken(s, "answered with too many interim answers", now)
		}
		return nil
	case !s.head:
		s.head, s.response = true, p.response
	}
	if h.headEnds {
		return h.answer(s, now)
	}
	return nil
}

// broken gives up a stream.
func (h *http2Conn) broken(s *stream, why string, now time.Time) error {
	h.cancel(s, http2.ErrCodeProtocol)
	h.lost(s, why, now)
	return h.ending()
}

// lost has a request sent again whose outcome is not known.
func (h *http2Conn) lost(s *stream, why string, now time.Time) {
	if s.writing {
		// its body is read by the writer, which is harmless: nothing but the spool owns it, and it is not acknowledged
		s.writing = false
	}
	h.drop(s)
	e := h.endpoint
	s.tried |= e.bit
	h.forwarder.failure(e, why, now)
	h.forwarder.again(s.job, e, why, now)
}

func (h *http2Conn) takeData(frame *http2.DataFrame, now time.Time) error {
	if h.refund += frame.Length; h.refund >= refundAt {
		n := h.refund
		h.refund = 0
		if err := h.reply(func(to *http2.Framer) error { return to.WriteWindowUpdate(0, n) }); err != nil {
			return err
		}
	}
	s := h.streams[frame.StreamID]
	if frame.StreamID >= h.nextID || frame.StreamID%2 == 0 {
		return fmt.Errorf("%w: a body that nothing was asked for", errMalformed)
	}
	if s == nil || s.ended {
		return nil
	}
	if !s.head {
		return h.broken(s, "answered with a body before its head", now)
	}
	if s.dropped += int(frame.Length); s.dropped > streamWindow {
		return fmt.Errorf("%w: a body over its window", errMalformed)
	}
	if frame.StreamEnded() {
		return h.answer(s, now)
	}
	if s.dropped > streamWindow-maxFrame { // nobody wants the rest; the status is known
		h.cancel(s, http2.ErrCodeCancel)
		return h.answer(s, now)
	}
	return nil
}

// answer takes over that an answer is whole. While the writer reads the body it is the writer that settles it.
func (h *http2Conn) answer(s *stream, now time.Time) error {
	h.answers++
	h.idle = 0
	h.last = now
	s.ended = true
	if s.writing || s.offset < len(s.item.Body) {
		h.signal()
		return nil
	}
	h.finish(s, now, &h.done)
	return h.ending()
}

// finish settles a stream whose answer is whole.
func (h *http2Conn) finish(s *stream, now time.Time, done *settled) {
	delete(h.streams, s.id)
	e := h.endpoint
	h.forwarder.answered(e, s.job, s.response, now, done)
	if e.queue.n > 0 {
		e.wake(now)
	}
}

func (h *http2Conn) takeReset(frame *http2.RSTStreamFrame, now time.Time) error {
	s := h.streams[frame.StreamID]
	switch {
	case frame.StreamID >= h.nextID || frame.StreamID%2 == 0:
		return fmt.Errorf("%w: a reset of what was not begun", errMalformed)
	case s == nil || s.ended:
	case frame.ErrCode == http2.ErrCodeRefusedStream:
		h.endpoint.slower(now, 0.7)
		h.allowed = uint32(max(1, min(int(h.allowed), len(h.streams)-1)))
		h.drop(s)
		s.tried |= h.bit
		h.forwarder.failure(h.endpoint, "refused the request", now)
		h.forwarder.place(s.job, now)
	default:
		h.lost(s, "reset the request: "+frame.ErrCode.String(), now)
	}
	return h.ending()
}

func (h *http2Conn) takeSettings(frame *http2.SettingsFrame) error {
	if frame.IsAck() {
		return nil
	}
	err := frame.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return fmt.Errorf("%w: %v", errMalformed, err)
		}
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			h.allowed = s.Val
		case http2.SettingInitialWindowSize:
			change := int64(s.Val) - h.initial
			h.initial = int64(s.Val)
			for _, stream := range h.streams {
				if stream.window += change; stream.window > math.MaxInt32 {
					return fmt.Errorf("%w: a window over 2^31-1", errMalformed)
				}
			}
		case http2.SettingHeaderTableSize:
			h.tableSize, h.newTable = s.Val, true
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.reply(func(to *http2.Framer) error { return to.WriteSettingsAck() })
}

func (h *http2Conn) takeWindow(frame *http2.WindowUpdateFrame, now time.Time) error {
	if frame.StreamID == 0 {
		if h.window += int64(frame.Increment); h.window > math.MaxInt32 {
			return fmt.Errorf("%w: a window over 2^31-1", errMalformed)
		}
	} else if s := h.streams[frame.StreamID]; s != nil {
		if s.window += int64(frame.Increment); s.window > math.MaxInt32 {
			return h.broken(s, "opened a window over 2^31-1", now)
		}
	}
	h.signal()
	return nil
}
