package h3

import (
	"errors"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// The frame types of RFC 9114 section 7.2 that matter here.
const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
	frameGoAway   = 0x7
)

// forbidden reports whether a frame type may not stand on a request stream: those of the control stream, of a server alone, and the
// ones that HTTP/2 had and HTTP/3 has not (RFC 9114 sections 7.2 and 7.2.8).
func forbidden(kind uint64) bool {
	switch kind {
	case 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd:
		return true
	}
	return false
}

// frames reads the frames of one request stream from a buffer that it fills.
type frames struct {
	from  io.Reader
	buf   []byte // of the stream, fixed size
	start int    // of what is read and not used yet
	end   int
	done  error // of the reader, once it has ended
}

var errTruncated = errors.New("the stream ended inside a frame")

// fill reads more; it reports false at the end of the stream.
func (f *frames) fill() bool {
	if f.done != nil {
		return false
	}
	if f.start == f.end {
		f.start, f.end = 0, 0
	} else if f.end == len(f.buf) && f.start > 0 {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	if f.end == len(f.buf) {
		return false
	}
	n, err := f.from.Read(f.buf[f.end:])
	f.end += n
	f.done = err
	return n > 0
}

// next reads the type and the length of a frame. It returns io.EOF when there is none.
func (f *frames) next() (kind, length uint64, err error) {
	for {
		data := f.buf[f.start:f.end]
		kind, n, ok := varint(data)
		if ok {
			if length, m, ok := varint(data[n:]); ok {
				f.start += n + m
				return kind, length, nil
			}
		}
		if !f.fill() {
			switch {
			case f.done != io.EOF && f.done != nil:
				return 0, 0, f.done
			case f.start < f.end:
				return 0, 0, errTruncated
			}
			return 0, 0, io.EOF
		}
	}
}

// integer reads one integer, such as the type of a stream.
func (f *frames) integer() (uint64, error) {
	for {
		if value, n, ok := varint(f.buf[f.start:f.end]); ok {
			f.start += n
			return value, nil
		}
		if !f.fill() {
			return 0, errTruncated
		}
	}
}

// whole returns the payload of a frame that fits the buffer. It is valid until the next call.
func (f *frames) whole(length uint64) ([]byte, error) {
	for uint64(f.end-f.start) < length {
		if !f.fill() {
			if f.done != nil && f.done != io.EOF {
				return nil, f.done
			}
			return nil, errTruncated
		}
	}
	payload := f.buf[f.start : f.start+int(length)]
	f.start += int(length)
	return payload, nil
}

// read reads some of a frame's payload, past the buffer if it holds nothing.
func (f *frames) read(p []byte) (int, error) {
	if f.start < f.end {
		n := copy(p, f.buf[f.start:f.end])
		f.start += n
		return n, nil
	}
	if f.done != nil {
		if f.done == io.EOF {
			return 0, errTruncated
		}
		return 0, f.done
	}
	n, err := f.from.Read(p)
	if f.done = err; n > 0 {
		return n, nil
	}
	if err == io.EOF {
		return 0, errTruncated
	}
	return 0, err
}

// skip reads the payload of a frame that means nothing here.
func (f *frames) skip(length uint64) error {
	for length > 0 {
		if f.start == f.end && !f.fill() {
			if f.done != nil && f.done != io.EOF {
				return f.done
			}
			return errTruncated
		}
		n := min(length, uint64(f.end-f.start))
		f.start += int(n)
		length -= n
	}
	return nil
}

// varint reads an integer of RFC 9000 section 16.
func varint(data []byte) (value uint64, n int, ok bool) {
	if len(data) == 0 {
		return 0, 0, false
	}
	if data[0] < 0x40 {
		return uint64(data[0]), 1, true
	}
	value, n, err := quicvarint.Parse(data)
	return value, n, err == nil
}

func appendFrame(buf []byte, kind uint64, length int) []byte {
	return quicvarint.Append(quicvarint.Append(buf, kind), uint64(length))
}
