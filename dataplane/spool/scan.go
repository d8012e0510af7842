package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// scanWindow is how much of a file is in memory while it is read, unless a record is longer.
const scanWindow = 1 << 20

// scan calls each for every whole record of a file, with its offset, and returns how many octets belong to none. A torn end,
// which a crash leaves, counts as well. The content is valid until each returns.
func (f format) scan(r io.ReaderAt, size int64, each func(offset int64, content []byte)) (lost int64, err error) {
	w := &window{r: r, size: size, start: int64(segmentHeader)}
	var marker [4]byte
	binary.BigEndian.PutUint32(marker[:], recordMarker)
	for offset := w.start; offset < size; {
		data, err := w.at(offset, recordHeader)
		if err != nil {
			return lost, err
		}
		if length, ok := contentLength(data); ok && int64(length) <= size-offset-recordHeader {
			if data, err = w.at(offset, recordHeader+length); err != nil {
				return lost, err
			}
			if content, ok := f.parseRecord(data); ok {
				each(offset, content)
				offset += int64(recordHeader + length)
				continue
			}
		}
		// Search for the next marker in what is in memory; keep three octets, since a marker may go on behind them.
		next := len(data) - (len(marker) - 1)
		if i := bytes.Index(data[1:], marker[:]); i >= 0 {
			next = 1 + i
		}
		step := max(1, int64(next))
		if offset+int64(len(data)) >= size && next == len(data)-(len(marker)-1) {
			step = size - offset
		}
		lost += step
		offset += step
	}
	return lost, nil
}

// window is a part of a file in memory.
type window struct {
	r     io.ReaderAt
	size  int64
	start int64 // of data
	data  []byte
}

// at returns what the file has from an offset on: at least as many octets as asked, or all that there are.
func (w *window) at(offset int64, length int) ([]byte, error) {
	length = int(min(int64(length), w.size-offset))
	skip := offset - w.start
	if skip >= 0 && skip+int64(length) <= int64(len(w.data)) {
		return w.data[skip:], nil
	}
	want := int(min(int64(max(length, scanWindow)), w.size-offset))
	if cap(w.data) < want {
		w.data = make([]byte, want)
	}
	w.data, w.start = w.data[:want], offset
	if n, err := w.r.ReadAt(w.data, offset); n < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return w.data, nil
}
