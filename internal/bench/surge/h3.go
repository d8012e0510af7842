package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// conn3 is a connection of HTTP/3, without what a client would do beside: the header is encoded once, and of an answer nothing is read
// but the status and whether there is a Retry-After.
type conn3 struct {
	*quic.Conn
	request *request
	header  []byte // a whole HEADERS frame
	tell    func(answer)
	number  atomic.Uint64
	index   int
}

func dial3(trust *tls.Config, from net.IP, index int, at string, r *request, tell func(answer)) (carrier, error) {
	config := trust.Clone()
	config.NextProtos = []string{"h3"}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	to, err := net.ResolveUDPAddr("udp4", at)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: from})
	if err != nil {
		return nil, err
	}
	conn, err := quic.Dial(ctx, socket, to, config, &quic.Config{MaxIdleTimeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	control, err := conn.OpenUniStream()
	if err != nil {
		return nil, err
	}
	if _, err := control.Write([]byte{0, 4, 0}); err != nil { // SETTINGS without any
		return nil, err
	}
	c := &conn3{Conn: conn, request: r, tell: tell, index: index}
	c.number.Store(uint64(time.Now().UnixNano()))
	var section frame
	encoder := qpack.NewEncoder(&section)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":authority", r.authority}, {":path", r.path}, {"content-type", "application/json"}, {r.keyName, r.key},
	} {
		if err := encoder.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	c.header = append(quicvarint.Append([]byte{1}, uint64(len(section))), section...)
	return c, nil
}

type frame []byte

func (f *frame) Write(p []byte) (int, error) {
	*f = append(*f, p...)
	return len(p), nil
}

func (c *conn3) send(ctx context.Context, due, until time.Time) error {
	stream, err := c.OpenStream()
	if limit := new(quic.StreamLimitReachedError); errors.As(err, &limit) {
		waiting, cancel := context.WithDeadline(ctx, until)
		stream, err = c.OpenStreamSync(waiting)
		cancel()
		if err != nil && c.Context().Err() == nil {
			return errUnsent
		}
	}
	if err != nil {
		return err
	}
	go c.exchange(stream, due)
	return nil
}

func (c *conn3) exchange(stream *quic.Stream, due time.Time) {
	a := answer{conn: c.index, due: due, sent: time.Now()}
	buf := make([]byte, 0, 2048)
	buf = append(buf, c.header...)
	body := c.request.body(make([]byte, 0, c.request.size+64), c.number.Add(1))
	buf = quicvarint.Append(append(buf, 0), uint64(len(body)))
	buf = append(buf, body...)
	if _, a.err = stream.Write(buf); a.err == nil {
		stream.Close()
		a.status, a.retryAfter, a.err = readAnswer(stream, buf[:0])
	} else {
		stream.CancelWrite(0x10c)
		if status, after, err := readAnswer(stream, buf[:0]); err == nil { // an answer may come before the request is whole
			a.status, a.retryAfter, a.err = status, after, nil
		}
	}
	c.tell(a)
}

func readAnswer(stream *quic.Stream, buf []byte) (status int, retryAfter time.Duration, err error) {
	buf = buf[:0]
	for err == nil {
		if len(buf) == cap(buf) {
			return 0, 0, errors.New("a long answer")
		}
		var n int
		n, err = stream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if err != io.EOF {
		return 0, 0, err
	}
	if len(buf) < 2 || buf[0] != 1 {
		return 0, 0, errors.New("an answer without HEADERS first")
	}
	length, n, err := quicvarint.Parse(buf[1:])
	if err != nil || uint64(len(buf)-1-n) < length {
		return 0, 0, errors.New("HEADERS cut off")
	}
	next := qpack.NewDecoder().Decode(buf[1+n : 1+n+int(length)])
	for {
		f, err := next()
		if err == io.EOF {
			return status, 0, nil
		}
		if err != nil {
			return 0, 0, err
		}
		switch f.Name {
		case ":status":
			for _, digit := range f.Value {
				status = status*10 + int(digit-'0')
			}
			if status != 503 {
				return status, 0, nil
			}
		case "retry-after":
			return status, seconds(f.Value), nil
		}
	}
}

func (c *conn3) close() { c.CloseWithError(0x100, "") }

// seconds reads a Retry-After.
func seconds(text string) time.Duration {
	n, _ := strconv.Atoi(text)
	return time.Duration(n) * time.Second
}
