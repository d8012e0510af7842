package relay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/isochrone/isochrone/topology/store"
)

// message is a part of an update, or without news a heartbeat. On the wire it is JSON behind its length in four octets, big-endian.
type message struct {
	Revision int64      `json:"revision"`        // of the store, up to which all has been told with the last part
	Whole    bool       `json:"whole,omitempty"` // the first part of all there is
	More     bool       `json:"more,omitempty"`  // another part of the same update follows
	Put      []pair     `json:"put,omitempty"`
	Delete   [][]byte   `json:"delete,omitempty"` // keys
	Sum      *store.Sum `json:"sum,omitempty"`    // of all that is stored, in the last part
}

// pair is what is put. In JSON both are in base64: they can be any octets.
type pair struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v"`
}

const (
	partBytes  = 256 << 10 // of keys and values, about, in one message
	maxMessage = 4 << 20   // of one message; a value is at most 1.5 MB, as etcd takes it
	maxUpdate  = 512 << 20 // of the messages of one update
)

// encode makes the messages of an update, whose keys are those of one kind of node.
func encode(u store.Update, sum store.Sum) [][]byte {
	var frames [][]byte
	part, size, whole := message{}, 0, u.Whole
	flush := func(more bool) {
		part.Revision, part.Whole, part.More = u.Revision, whole, more
		if !more {
			part.Sum = &sum
		}
		frames = append(frames, frame(part))
		part, size, whole = message{}, 0, false
	}
	add := func(n int) {
		if size += n; size >= partBytes {
			flush(true)
		}
	}
	for _, key := range u.Delete {
		part.Delete = append(part.Delete, []byte(key))
		add(len(key))
	}
	for key, value := range u.Put {
		part.Put = append(part.Put, pair{[]byte(key), value})
		add(len(key) + len(value))
	}
	flush(false)
	return frames
}

// frame is a message as it is sent.
func frame(m message) []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // keys and values can be written, whatever they are
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text))), text...)
}

// readMessage reads a message. The error is io.EOF only between two.
func readMessage(r io.Reader) (m message, size int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, 0, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > maxMessage {
		return m, 0, fmt.Errorf("a message of %d octets: at most %d are taken", length, maxMessage)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(length))) // which takes memory as octets come
	if err == nil && len(text) < int(length) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return m, 0, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, 0, fmt.Errorf("a message that is not JSON as expected: %w", err)
	}
	return m, int(length), nil
}

// readUpdate reads the messages of an update.
func readUpdate(r io.Reader) (store.Update, error) {
	u := store.Update{Put: map[string][]byte{}}
	for parts, size := 0, 0; ; parts++ {
		m, n, err := readMessage(r)
		if err == io.EOF && parts > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return u, err
		}
		if size += n; size > maxUpdate {
			return u, fmt.Errorf("an update of more than %d octets", maxUpdate)
		}
		if m.Whole && parts > 0 || m.Revision < 0 || parts > 0 && m.Revision != u.Revision {
			return u, errors.New("messages that do not belong together")
		}
		u.Revision, u.Whole = m.Revision, u.Whole || m.Whole
		for _, put := range m.Put {
			u.Put[string(put.Key)] = put.Value
		}
		for _, key := range m.Delete {
			u.Delete = append(u.Delete, string(key))
		}
		if !m.More {
			u.Sum = m.Sum
			return u, nil
		}
	}
}
