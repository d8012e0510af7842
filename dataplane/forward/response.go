package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Bounds of an answer. What is beyond them, or not of the form of RFC 9112, ends the connection: where an answer ends could not be told.
const (
	maxHead      = 16 << 10 // octets of a status line and its header fields
	maxFields    = 100      // of a head, or of trailers
	maxInterim   = 8        // 1xx answers before the answer
	maxDrained   = 64 << 10 // octets of a body, all of which are dropped
	maxChunkLine = 256      // octets of a chunk's size and extensions
	maxRetryWait = 10 * time.Minute
)

var (
	errMalformed = errors.New("malformed answer")
	errTooLong   = errors.New("answer over its bounds")
)

// response is what is of interest in an answer.
type response struct {
	status     int
	retryAfter time.Duration // 0 for none; at most ten minutes
	last       bool          // no other answer follows on this connection
}

// responseReader reads the answers of an HTTP/1.1 connection.
type responseReader struct {
	r          io.Reader
	before     func() error // called before each wait for more; may be nil
	buf        []byte
	start, end int
}

func newResponseReader(r io.Reader) *responseReader {
	return &responseReader{r: r, buf: make([]byte, maxHead)}
}

// fill reads more.
func (p *responseReader) fill() error {
	if p.start > 0 {
		copy(p.buf, p.buf[p.start:p.end])
		p.start, p.end = 0, p.end-p.start
	}
	if p.end == len(p.buf) {
		return errTooLong
	}
	if p.before != nil {
		if err := p.before(); err != nil {
			return err
		}
	}
	n, err := p.r.Read(p.buf[p.end:])
	p.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// line returns the next line without its CRLF, valid until the next call. A bare LF is no end of a line (RFC 9112 section 2.2 allows
// one to take it; a difference between two readers is what request smuggling lives on).
func (p *responseReader) line(limit int) ([]byte, error) {
	for searched := 0; ; {
		window := p.buf[p.start:p.end]
		if i := bytes.IndexByte(window[searched:], '\n'); i >= 0 {
			i += searched
			if i > limit {
				return nil, errTooLong
			}
			if i == 0 || window[i-1] != '\r' {
				return nil, fmt.Errorf("%w: a line that does not end in CRLF", errMalformed)
			}
			p.start += i + 1
			return window[:i-1], nil
		}
		if searched = len(window); searched > limit {
			return nil, errTooLong
		}
		if err := p.fill(); err != nil {
			if err == io.EOF && searched > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// next reads one answer to its end, and the interim ones before it. The error is io.EOF when the connection ended before the answer
// began.
func (p *responseReader) next() (response, error) {
	for range maxInterim + 1 {
		head, err := p.head()
		if err != nil {
			return response{}, err
		}
		if head.status >= 200 {
			err := p.body(&head) // which may say that the answer is the last
			return head.response, err
		}
		if head.status == http.StatusSwitchingProtocols || head.length > 0 || head.chunked {
			return response{}, fmt.Errorf("%w: %d, which was not asked for", errMalformed, head.status)
		}
	}
	return response{}, fmt.Errorf("%w: more than %d interim answers", errTooLong, maxInterim)
}

// head is a status line with its header fields.
type head struct {
	response
	length  int64 // of the body; -1 when it is not told
	chunked bool
}

func (p *responseReader) head() (head, error) {
	h := head{length: -1}
	line, err := p.line(maxHead)
	if err != nil {
		return h, err
	}
	// HTTP-version SP status-code SP [ reason-phrase ], RFC 9112 section 4
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return h, fmt.Errorf("%w: no status line of HTTP/1", errMalformed)
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return h, fmt.Errorf("%w: no status code", errMalformed)
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return h, fmt.Errorf("%w: status %d", errMalformed, h.status)
	}
	old := line[7] == '0'
	h.last = old
	total := len(line)
	for fields := 0; ; fields++ {
		if line, err = p.line(maxHead); err != nil {
			return h, whole(err)
		}
		if len(line) == 0 {
			break
		}
		if total += len(line) + 2; total > maxHead || fields == maxFields {
			return h, errTooLong
		}
		if err := h.field(line); err != nil {
			return h, err
		}
	}
	if h.chunked && (h.length >= 0 || old) {
		return h, fmt.Errorf("%w: two lengths", errMalformed) // RFC 9112 section 6.1
	}
	return h, nil
}

// whole makes an error of an end in the middle of an answer.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// field reads a header field.
func (h *head) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return fmt.Errorf("%w: a header field without a name", errMalformed)
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	for _, c := range name {
		if !isToken(c) {
			return fmt.Errorf("%w: a header field's name with the octet %#02x", errMalformed, c)
		}
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("%w: a header field's value with the octet %#02x", errMalformed, c)
		}
	}
	switch len(name) {
	case len("Content-Length"):
		if equalFold(name, "content-length") {
			n, ok := parseLength(value)
			if !ok || h.length >= 0 {
				return fmt.Errorf("%w: Content-Length %.40q", errMalformed, value)
			}
			h.length = n
		}
	case len("Transfer-Encoding"):
		if equalFold(name, "transfer-encoding") {
			if h.chunked || !equalFold(value, "chunked") {
				return fmt.Errorf("%w: Transfer-Encoding %.40q", errMalformed, value)
			}
			h.chunked = true
		}
	case len("Connection"):
		if equalFold(name, "connection") {
			for option := range bytes.SplitSeq(value, []byte{','}) {
				h.last = h.last || equalFold(bytes.Trim(option, " \t"), "close")
			}
		}
	}
	if len(name) == len("Retry-After") && equalFold(name, "retry-after") {
		h.retryAfter = parseRetryAfter(string(value), time.Now())
	}
	return nil
}

// parseLength reads a Content-Length, in which RFC 9110 section 8.6 allows nothing but digits.
func parseLength(value []byte) (int64, bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseRetryAfter reads seconds or a date (RFC 9110 section 10.2.3), and 0 when it is neither or in the past.
func parseRetryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(value, 10, 31)
	if err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryWait)
	}
	if errors.Is(err, strconv.ErrRange) {
		return maxRetryWait
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryWait)
	}
	return 0
}

// equalFold compares with a text in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isToken reports whether an octet may stand in a header field's name (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
