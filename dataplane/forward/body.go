package forward

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// body drops the body of an answer to a POST (RFC 9112 section 6.3).
func (p *responseReader) body(h *head) error {
	switch {
	case h.status == http.StatusNoContent || h.status == http.StatusNotModified:
		if h.chunked || h.length > 0 && h.status == http.StatusNoContent {
			return fmt.Errorf("%w: a body of status %d", errMalformed, h.status)
		}
		return nil
	case h.chunked:
		return p.chunks()
	case h.length >= 0:
		if h.length > maxDrained {
			return errTooLong
		}
		return whole(p.skip(int(h.length)))
	}
	h.response.last = true
	for dropped := 0; dropped <= maxDrained; {
		dropped += p.end - p.start
		p.start, p.end = 0, 0
		if err := p.fill(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
	return errTooLong
}

// skip drops octets.
func (p *responseReader) skip(n int) error {
	for n > 0 {
		if p.start == p.end {
			if err := p.fill(); err != nil {
				return err
			}
		}
		k := min(n, p.end-p.start)
		p.start += k
		n -= k
	}
	return nil
}

// chunks drops a chunked body with its trailers (RFC 9112 section 7.1).
func (p *responseReader) chunks() error {
	for total := 0; ; {
		line, err := p.line(maxChunkLine)
		if err != nil {
			return whole(err)
		}
		size, err := chunkSize(line)
		if err != nil {
			return err
		}
		if total += size + 16; total > maxDrained {
			return errTooLong
		}
		if size == 0 {
			break
		}
		if err := p.skip(size); err != nil {
			return whole(err)
		}
		if line, err = p.line(2); err != nil || len(line) > 0 {
			return fmt.Errorf("%w: a chunk without its end", errMalformed)
		}
	}
	for range maxFields + 1 {
		line, err := p.line(maxHead / 4)
		if err != nil {
			return whole(err)
		}
		if len(line) == 0 {
			return nil
		}
		if bytes.IndexByte(line, ':') <= 0 {
			return fmt.Errorf("%w: a trailer without a name", errMalformed)
		}
	}
	return errTooLong
}

func chunkSize(line []byte) (int, error) {
	size, digits := 0, 0
	for _, c := range line {
		d := 0
		switch {
		case c >= '0' && c <= '9':
			d = int(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = int(c|0x20-'a') + 10
		default:
			d = -1
		}
		if d < 0 {
			break
		}
		if digits++; digits > 7 {
			return 0, errTooLong
		}
		size = size<<4 | d
	}
	if rest := bytes.TrimRight(line[digits:], " \t"); digits == 0 || len(rest) > 0 && rest[0] != ';' {
		return 0, fmt.Errorf("%w: no chunk size", errMalformed)
	}
	return size, nil
}
