package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// A file of records begins with a header: eight octets that name the format and its version, then eight random ones, the
// salt. A record is marker, length, checksum and content; the checksum includes the salt, so that no payload can pass for a
// record when a damaged file is searched for what is left.
//
// Version 1 had the salt before the content in the checksum, and envelopes without window, trace and time of replay. It is still
// read.
const (
	segmentMagic     = "isospl\x00\x02"
	segmentMagic1    = "isospl\x00\x01"
	segmentHeader    = len(segmentMagic) + 8
	recordMarker     = 0x1505_c8a7
	recordHeader     = 12
	maxRecordContent = 32 << 20
)

// The kinds of record; a record's content begins with its kind and a sequence number.
const (
	kindEnvelope = 1
	kindSettled  = 2 // also those whose numbers follow, each with how
	kindNothing  = 3 // only proves that the disk takes writes
	kindOutcome  = 4 // in the folder outcomes
)

const contentHeader = 9

// settledLength is the octets of one settlement in a record: sequence number, State, cluster's time in nanoseconds.
const settledLength = 8 + 1 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// format is how the records of one file are read.
type format struct {
	version int // 0 if it is none of ours, or a newer one
	salt    []byte
}

// formatOf reads a file's header.
func formatOf(header []byte) format {
	if len(header) < segmentHeader {
		return format{}
	}
	salt := append([]byte(nil), header[len(segmentMagic):segmentHeader]...)
	switch string(header[:len(segmentMagic)]) {
	case segmentMagic:
		return format{2, salt}
	case segmentMagic1:
		return format{1, salt}
	}
	return format{}
}

func (f format) checksum(content []byte) uint32 {
	if f.version == 1 {
		return crc32.Update(crc32.Checksum(f.salt, castagnoli), castagnoli, content)
	}
	return crc32.Update(crc32.Checksum(content, castagnoli), castagnoli, f.salt)
}

// beginRecord appends the header of a record and the beginning of its content. Its length and checksum are set by endRecord.
func beginRecord(buf []byte, kind byte, seq uint64) []byte {
	buf = binary.BigEndian.AppendUint32(buf, recordMarker)
	buf = append(buf, 0, 0, 0, 0, 0, 0, 0, 0, kind)
	return binary.BigEndian.AppendUint64(buf, seq)
}

// endRecord completes a record that begins at start and whose content goes on in body. It returns the checksum without the salt.
func endRecord(buf []byte, start int, body []byte) uint32 {
	content := buf[start+recordHeader:]
	binary.BigEndian.PutUint32(buf[start+4:], uint32(len(content)+len(body)))
	sum := crc32.Checksum(content, castagnoli)
	if len(body) > 0 {
		sum = crc32.Update(sum, castagnoli, body)
	}
	return sum
}

// sealRecord adds the salt to the checksum of a record at the beginning of buf.
func sealRecord(buf []byte, sum uint32, salt []byte) {
	binary.BigEndian.PutUint32(buf[8:], crc32.Update(sum, castagnoli, salt))
}

// appendRecord appends a record whose content fill appends.
func appendRecord(buf, salt []byte, kind byte, seq uint64, fill func([]byte) []byte) []byte {
	start := len(buf)
	buf = beginRecord(buf, kind, seq)
	if fill != nil {
		buf = fill(buf)
	}
	sealRecord(buf[start:], endRecord(buf, start, nil), salt)
	return buf
}

// parseRecord returns the content of the record at the beginning of data, and false if there is no whole one.
func (f format) parseRecord(data []byte) (content []byte, ok bool) {
	length, ok := contentLength(data)
	if !ok || length > len(data)-recordHeader {
		return nil, false
	}
	content = data[recordHeader : recordHeader+length]
	return content, f.checksum(content) == binary.BigEndian.Uint32(data[8:])
}

// contentLength reads what seems to be a record's header.
func contentLength(data []byte) (length int, ok bool) {
	if len(data) < recordHeader || binary.BigEndian.Uint32(data) != recordMarker {
		return 0, false
	}
	length = int(binary.BigEndian.Uint32(data[4:]))
	return length, length >= contentHeader && length <= maxRecordContent
}

// appendMeta appends all but the body.
func (e *Envelope) appendMeta(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint64(buf, uint64(e.Received.UnixNano()))
	var replayed int64
	if !e.Replayed.IsZero() {
		replayed = e.Replayed.UnixNano()
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(replayed))
	buf = binary.BigEndian.AppendUint64(buf, uint64(e.Window))
	buf = append(buf, e.SHA256[:]...)
	for _, text := range e.texts() {
		buf = appendText(buf, *text)
	}
	return buf
}

func (e *Envelope) appendTo(buf []byte) []byte { return append(e.appendMeta(buf), e.Body...) }

// size is the number of octets that appendTo appends.
func (e *Envelope) size() int {
	n := 3*8 + len(e.SHA256) + len(e.Body)
	for _, text := range e.texts() {
		n += 2 + len(*text)
	}
	return n
}

func appendText(buf []byte, text string) []byte {
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(text)))
	return append(buf, text...)
}

// cutText reads what appendText has written.
func cutText(data []byte) (text, rest []byte, ok bool) {
	if len(data) < 2 || int(binary.BigEndian.Uint16(data)) > len(data)-2 {
		return nil, nil, false
	}
	length := int(binary.BigEndian.Uint16(data))
	return data[2 : 2+length], data[2+length:], true
}

var errRecord = errors.New("spool: not an envelope's record")

// parseEnvelope reads what appendTo has written. The body is part of data.
func (f format) parseEnvelope(data []byte) (*Envelope, error) {
	e := new(Envelope)
	fixed := 3*8 + len(e.SHA256)
	if f.version == 1 {
		fixed = 8 + len(e.SHA256)
	}
	if len(data) < fixed {
		return nil, errRecord
	}
	e.Received = time.Unix(0, int64(binary.BigEndian.Uint64(data)))
	texts := e.texts()
	named := texts[:]
	if f.version == 1 {
		named = texts[:4]
	} else {
		if replayed := int64(binary.BigEndian.Uint64(data[8:])); replayed != 0 {
			e.Replayed = time.Unix(0, replayed)
		}
		e.Window = int64(binary.BigEndian.Uint64(data[16:]))
	}
	copy(e.SHA256[:], data[fixed-len(e.SHA256):])
	data = data[fixed:]
	for _, text := range named {
		value, rest, ok := cutText(data)
		if !ok {
			return nil, errRecord
		}
		*text, data = string(value), rest
	}
	e.Body = data
	return e, nil
}
