package dns

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLongQuestionsAreCut(t *testing.T) {
	long := bytes.Repeat([]byte{7}, longestQuestion+5)
	r := bufio.NewReaderSize(bytes.NewReader(append(framed(long), framed([]byte{1, 2})...)), readBuffer)
	got, err := readMessage(r)
	if err != nil || len(got) != longestQuestion {
		t.Errorf("got %d octets, %v, want %d", len(got), err, longestQuestion)
	}
	if got, err := readMessage(r); err != nil || !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("the next one: got %x, %v", got, err)
	}
}

// slowConn is a connection whose first write waits.
type slowConn struct {
	net.Conn
	began, proceed chan struct{}
	writes         [][]byte
}

func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }

func (c *slowConn) Write(b []byte) (int, error) {
	c.writes = append(c.writes, bytes.Clone(b))
	if len(c.writes) == 1 {
		close(c.began)
		<-c.proceed
	}
	return len(b), nil
}

func TestMessagesAreWrittenTogether(t *testing.T) {
	conn := &slowConn{began: make(chan struct{}), proceed: make(chan struct{})}
	w := newMessageWriter(conn, func() { t.Error("failed") })
	done := make(chan error, 1)
	go func() { done <- w.write([]byte{1}) }()
	<-conn.began
	for i := byte(2); i < 5; i++ {
		if err := w.write([]byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	close(conn.proceed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := [][]byte{{0, 1, 1}, {0, 1, 2, 0, 1, 3, 0, 1, 4}}
	if diff := cmp.Diff(want, conn.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if err := w.write(make([]byte, math.MaxUint16+1)); err == nil || len(conn.writes) != 2 {
		t.Errorf("a message that is too long: got %v, %d writes", err, len(conn.writes))
	}
}

func TestQueuedAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length, all = 1000, 200
		conn := &slowConn{began: make(chan struct{}), proceed: make(chan struct{})}
		w := newMessageWriter(conn, func() { t.Error("failed") })
		var running sync.WaitGroup
		var written atomic.Int64
		for range all {
			running.Go(func() {
				if err := w.write(make([]byte, length)); err != nil {
					t.Error(err)
				}
				written.Add(1)
			})
		}
		synctest.Wait()
		if got, want := written.Load(), int64(maxQueued/(prefixLen+length)+1); got != want {
			t.Errorf("got %d messages taken while the first is being written, want %d", got, want)
		}
		close(conn.proceed)
		running.Wait()
		total := 0
		for _, b := range conn.writes {
			total += len(b)
		}
		if want := all * (prefixLen + length); total != want {
			t.Errorf("got %d octets written, want %d", total, want)
		}
	})
}

// FuzzFraming holds the reader of messages to a simple one, however the octets come.
func FuzzFraming(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add([]byte{0, 0, 0, 1, 9})
	f.Add([]byte{0, 3, 1, 2})
	f.Add(framed(make([]byte, longestQuestion+1)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, source := range []io.Reader{
			bytes.NewReader(stream), iotest.OneByteReader(bytes.NewReader(stream)), iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			r, rest := bufio.NewReaderSize(source, readBuffer), stream
			for {
				waits := !messageBuffered(r)
				message, err := readMessage(r)
				if len(rest) < prefixLen || len(rest) < prefixLen+int(binary.BigEndian.Uint16(rest)) {
					if err == nil || !waits || (err == io.EOF) != (len(rest) == 0) || err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Fatalf("of %x: got %x, %v", rest, message, err)
					}
					break
				}
				n := int(binary.BigEndian.Uint16(rest))
				if err != nil || !bytes.Equal(message, rest[prefixLen:prefixLen+min(n, longestQuestion)]) {
					t.Fatalf("of %x: got %x, %v", rest, message, err)
				}
				rest = rest[prefixLen+n:]
			}
		}
	})
}
