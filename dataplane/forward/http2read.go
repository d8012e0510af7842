package forward

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// read reads frames until the connection ends.
func (h *http2Conn) read() error {
	f := h.forwarder
	for {
		frame, err := h.from.ReadFrame()
		if err != nil {
			if code, ok := err.(http2.ConnectionError); ok {
				err = fmt.Errorf("%w: %v", errMalformed, code)
			} else if se, ok := err.(http2.StreamError); ok {
				err = fmt.Errorf("%w: %v", errMalformed, se)
			}
			return err
		}
		now := time.Now()
		if h.idle++; h.idle > maxIdleFrames {
			return fmt.Errorf("%w: frames without answers", errTooLong)
		}
		if headers, ok := frame.(*http2.HeadersFrame); ok {
			if err := h.readHead(headers); err != nil {
				return err
			}
		}
		f.mu.Lock()
		err = h.take1(frame, now)
		f.mu.Unlock()
		if len(h.done.items) > 0 {
			f.acknowledge(&h.done)
		}
		if err != nil {
			return err
		}
	}
}

// parsedHead is a block of header fields that was read.
type parsedHead struct {
	response
	fields, size int
	pseudo       int
	err          error
}

func (p *parsedHead) field(f hpack.HeaderField) {
	p.fields++
	p.size += len(f.Name) + len(f.Value)
	bad := p.fields > maxFields || p.size > maxHead || !isFieldName(f.Name) || !isValue(f.Value)
	switch {
	case f.Name == ":status":
		p.pseudo++
		status, err := strconv.ParseUint(f.Value, 10, 16)
		bad = bad || err != nil || len(f.Value) != 3 || status < 100 || status > 599 || p.pseudo > 1 || p.fields > p.pseudo
		p.status = int(status)
	case f.IsPseudo(), f.Name == "connection", f.Name == "transfer-encoding": // RFC 9113 section 8.2.2
		bad = true
	case f.Name == "retry-after":
		p.retryAfter = parseRetryAfter(f.Value, time.Now())
	}
	if bad && p.err == nil {
		p.err = fmt.Errorf("%w: header field %.40q", errMalformed, f.Name)
	}
}

func isFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isToken(c) && (i > 0 || c != ':') || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return name != ""
}

// readHead reads a block of header fields to its end.
func (h *http2Conn) readHead(frame *http2.HeadersFrame) error {
	h.parsed = parsedHead{}
	ended, stream, end := frame.HeadersEnded(), frame.StreamID, frame.StreamEnded()
	fragment := frame.HeaderBlockFragment()
	for n := 0; ; n++ {
		if _, err := h.decoder.Write(fragment); err != nil {
			return fmt.Errorf("%w: %v", errMalformed, err)
		}
		if ended {
			break
		}
		if n == maxContinuation || h.parsed.size > maxHead {
			return errTooLong
		}
		next, err := h.from.ReadFrame()
		if err != nil {
			return err
		}
		continuation, ok := next.(*http2.ContinuationFrame)
		if !ok {
			return errMalformed
		}
		ended, fragment = continuation.HeadersEnded(), continuation.HeaderBlockFragment()
	}
	if err := h.decoder.Close(); err != nil {
		return fmt.Errorf("%w: %v", errMalformed, err)
	}
	h.headOf, h.headEnds = stream, end
	return nil
}

// take1 takes over one frame. The caller holds the mutex.
func (h *http2Conn) take1(frame http2.Frame, now time.Time) error {
	switch frame := frame.(type) {
	case *http2.HeadersFrame:
		return h.takeHead(now)
	case *http2.DataFrame:
		return h.takeData(frame, now)
	case *http2.RSTStreamFrame:
		return h.takeReset(frame, now)
	case *http2.SettingsFrame:
		return h.takeSettings(frame)
	case *http2.WindowUpdateFrame:
		return h.takeWindow(frame, now)
	case *http2.PingFrame:
		if frame.IsAck() {
			return nil
		}
		data := frame.Data
		return h.reply(func(to *http2.Framer) error { return to.WritePing(true, data) })
	case *http2.GoAwayFrame:
		return h.goAway(frame.LastStreamID, now)
	case *http2.PushPromiseFrame:
		return fmt.Errorf("%w: a push, which was not asked for", errMalformed)
	}
	return nil
}
