package dns

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

// Messages on a stream have their length before them, in two octets (RFC 1035 section 4.2.2).

const (
	prefixLen = 2

	// longestQuestion is what is read of a question over a stream: a name, an SOA for IXFR, options with padding and a TSIG
	// fit many times. The rest of a longer one is read and forgotten, which makes it malformed, as over UDP; without the bound
	// the questions in flight could hold 4 GB.
	longestQuestion = 4096

	// maxQueued is how many octets of answers may wait for those before them to be written.
	maxQueued = 64 << 10

	// keptBuffer is the largest buffer that a connection keeps when it has nothing to write.
	keptBuffer = 4 << 10
)

// readMessage reads one message, cut after longestQuestion octets. The error is io.EOF only where no message has begun.
func readMessage(r *bufio.Reader) ([]byte, error) {
	var prefix [prefixLen]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(prefix[:]))
	message := make([]byte, min(n, longestQuestion))
	_, err := io.ReadFull(r, message)
	if err == nil {
		_, err = r.Discard(n - len(message))
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return message, nil
}

// messageBuffered tells whether readMessage will not have to wait.
func messageBuffered(r *bufio.Reader) bool {
	if r.Buffered() < prefixLen {
		return false
	}
	prefix, _ := r.Peek(prefixLen)
	return r.Buffered() >= prefixLen+int(binary.BigEndian.Uint16(prefix))
}

// messageWriter writes messages to a connection, each whole and in the order of the calls. Messages that come while others
// are being written are written together. It has no goroutine: one of those who call write writes for all, and returns when
// nothing waits. So whoever has joined the callers knows that all is written or failed.
type messageWriter struct {
	conn net.Conn
	fail func() // called once, when a write fails

	mu      sync.Mutex
	drained sync.Cond // queued became empty, or err was set
	queued  []byte
	spare   []byte // empty; the other buffer
	writing bool
	err     error // the first; nothing is written after it
}

func newMessageWriter(conn net.Conn, fail func()) *messageWriter {
	w := &messageWriter{conn: conn, fail: fail}
	w.drained.L = &w.mu
	return w
}

// write takes a message, which the caller may change as soon as it returns. It waits while too much is queued. An error may
// be that of an earlier message.
func (w *messageWriter) write(message []byte) error {
	if len(message) > math.MaxUint16 {
		return fmt.Errorf("a message of %d octets: a stream takes at most %d", len(message), math.MaxUint16)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.queued) > maxQueued {
		w.drained.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.queued = binary.BigEndian.AppendUint16(w.queued, uint16(len(message)))
	w.queued = append(w.queued, message...)
	if w.writing {
		return nil
	}
	w.writing = true
	for len(w.queued) > 0 && w.err == nil {
		w.flush()
	}
	w.writing = false
	if cap(w.queued) > keptBuffer {
		w.queued = nil
	}
	if cap(w.spare) > keptBuffer {
		w.spare = nil
	}
	return w.err
}

// flush writes what is queued, without the lock.
func (w *messageWriter) flush() {
	out := w.queued
	w.queued = w.spare
	w.drained.Broadcast()
	w.mu.Unlock()
	w.conn.SetWriteDeadline(time.Now().Add(streamWriteTimeout))
	_, err := w.conn.Write(out)
	if err != nil {
		w.fail()
	}
	w.mu.Lock()
	w.spare = out[:0]
	if err != nil {
		w.err = err
		w.drained.Broadcast()
	}
}
