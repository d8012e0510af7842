package forward

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
)

// FuzzResponse holds the parser to net/http's: what we take, it takes too, with the same status and the same end. It may take more.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		yes, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nbody",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + yes,
		"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newResponseReader(bytes.NewReader(data))
		got, err := r.next()
		slowly := newResponseReader(iotest.OneByteReader(bytes.NewReader(data)))
		again, errAgain := slowly.next()
		if got != again || (err == nil) != (errAgain == nil) {
			t.Fatalf("got %+v, %v at once, and %+v, %v octet by octet", got, err, again, errAgain)
		}
		if err != nil {
			return
		}
		theirs := bufio.NewReader(bytes.NewReader(data))
		request := &http.Request{Method: "POST"}
		answer, err := http.ReadResponse(theirs, request)
		for err == nil && answer.StatusCode/100 == 1 {
			answer, err = http.ReadResponse(theirs, request)
		}
		if err != nil {
			t.Fatalf("taken, though net/http says: %v", err)
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if err != nil || answer.StatusCode != got.status {
			t.Fatalf("got %+v; net/http has %d, %v", got, answer.StatusCode, err)
		}
		rest, _ := io.ReadAll(theirs)
		ours := append(bytes.Clone(r.buf[r.start:r.end]), must(io.ReadAll(r.r))...)
		if !got.last && !bytes.Equal(rest, ours) {
			t.Fatalf("the answer ends before %q, by net/http before %q", ours, rest)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
