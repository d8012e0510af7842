package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A segment begins with a header: eight octets that name the format and its version, then eight random ones, the salt. A
// record is marker, length, checksum and content; the checksum begins with the salt, so that no payload can pass for a
// record when a damaged segment is searched for what is left.
const (
	segmentMagic     = "isospl\x00\x01"
	segmentHeader    = len(segmentMagic) + 8
	recordMarker     = 0x1505_c8a7
	recordHeader     = 12
	maxRecordContent = 32 << 20
)

// The kinds of record; a record's content begins with its kind and a sequence number.
const (
	kindEnvelope = 1
	kindSettled  = 2
	kindNothing  = 3 // only proves that the disk takes writes
)

const contentHeader = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(salt, content []byte) uint32 {
	return crc32.Update(crc32.Checksum(salt, castagnoli), castagnoli, content)
}

// appendRecord appends a record whose content fill appends.
func appendRecord(buf, salt []byte, kind byte, seq uint64, fill func([]byte) []byte) []byte {
	start := len(buf)
	buf = append(buf, make([]byte, recordHeader)...)
	buf = append(buf, kind)
	buf = binary.BigEndian.AppendUint64(buf, seq)
	if fill != nil {
		buf = fill(buf)
	}
	content := buf[start+recordHeader:]
	binary.BigEndian.PutUint32(buf[start:], recordMarker)
	binary.BigEndian.PutUint32(buf[start+4:], uint32(len(content)))
	binary.BigEndian.PutUint32(buf[start+8:], checksum(salt, content))
	return buf
}

// parseRecord returns the content of the record at the beginning of data, and false if there is no whole one.
func parseRecord(data, salt []byte) (content []byte, ok bool) {
	if len(data) < recordHeader || binary.BigEndian.Uint32(data) != recordMarker {
		return nil, false
	}
	length := binary.BigEndian.Uint32(data[4:])
	if length < contentHeader || length > maxRecordContent || int(length) > len(data)-recordHeader {
		return nil, false
	}
	content = data[recordHeader : recordHeader+int(length)]
	return content, checksum(salt, content) == binary.BigEndian.Uint32(data[8:])
}

// scan calls each for every whole record of a segment, with its offset, and returns how many octets belong to none. A torn
// end, which a crash leaves, counts as well.
func scan(data, salt []byte, each func(offset int, content []byte)) (lost int) {
	marker := binary.BigEndian.AppendUint32(nil, recordMarker)
	for offset := segmentHeader; offset < len(data); {
		if content, ok := parseRecord(data[offset:], salt); ok {
			each(offset, content)
			offset += recordHeader + len(content)
			continue
		}
		next := bytes.Index(data[offset+1:], marker)
		if next < 0 {
			return lost + len(data) - offset
		}
		lost += 1 + next
		offset += 1 + next
	}
	return lost
}

func (e *Envelope) appendTo(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint64(buf, uint64(e.Received.UnixNano()))
	buf = append(buf, e.SHA256[:]...)
	for _, text := range []string{e.ID, e.KeyID, e.Service, e.ContentType} {
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(text)))
		buf = append(buf, text...)
	}
	return append(buf, e.Body...)
}

// size is the number of octets that appendTo appends.
func (e *Envelope) size() int {
	return 8 + len(e.SHA256) + 2 + len(e.ID) + 2 + len(e.KeyID) + 2 + len(e.Service) + 2 + len(e.ContentType) + len(e.Body)
}

// check reports what a record cannot hold.
func (e *Envelope) check() error {
	for _, text := range []string{e.ID, e.KeyID, e.Service, e.ContentType} {
		if len(text) > 1<<12 {
			return fmt.Errorf("spool: a field of envelope %.40q has %d octets, more than 4096", e.ID, len(text))
		}
	}
	if len(e.Body) > maxRecordContent-(1<<16) {
		return fmt.Errorf("spool: envelope %.40q has a body of %d octets, more than fit a record", e.ID, len(e.Body))
	}
	return nil
}

var errRecord = errors.New("spool: not an envelope's record")

// receivedOf returns when the envelope of a record's content arrived, as appendTo has written it, and 0 if there is none.
func receivedOf(content []byte) int64 {
	if len(content) < contentHeader+8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(content[contentHeader:]))
}

// parseEnvelope reads what appendTo has written.
func parseEnvelope(data []byte) (*Envelope, error) {
	e := new(Envelope)
	if len(data) < 8+len(e.SHA256) {
		return nil, errRecord
	}
	e.Received = time.Unix(0, int64(binary.BigEndian.Uint64(data)))
	data = data[8+copy(e.SHA256[:], data[8:]):]
	for _, text := range []*string{&e.ID, &e.KeyID, &e.Service, &e.ContentType} {
		if len(data) < 2 || int(binary.BigEndian.Uint16(data)) > len(data)-2 {
			return nil, errRecord
		}
		length := int(binary.BigEndian.Uint16(data))
		*text, data = string(data[2:2+length]), data[2+length:]
	}
	e.Body = data
	return e, nil
}
