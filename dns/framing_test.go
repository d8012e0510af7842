package dns

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
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
