package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn2 is a connection of HTTP/2. Many requests go out with one write, when many are due.
type conn2 struct {
	conn    *tls.Conn
	request *request
	header  []byte // a block without dynamic entries
	tell    func(answer)
	number  atomic.Uint64
	index   int

	mu      sync.Mutex
	changed sync.Cond // of the credit, or ended
	out     bytes.Buffer
	framer  *http2.Framer // to out
	wake    chan struct{} // cap 1: something is in out
	open    map[uint32]answer
	next    uint32
	limit   int // of streams
	window  int // octets of the connection
	ended   error
}

func dial2(trust *tls.Config, from net.IP, index int, at string, r *request, tell func(answer)) (carrier, error) {
	config := trust.Clone()
	config.NextProtos = []string{"h2"}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", at, config)
	if err != nil {
		return nil, err
	}
	c := &conn2{conn: conn, request: r, tell: tell, index: index, wake: make(chan struct{}, 1), open: map[uint32]answer{}, next: 1, limit: 100, window: 65535}
	c.number.Store(uint64(time.Now().UnixNano()))
	c.changed.L = &c.mu
	c.framer = http2.NewFramer(&c.out, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":authority", r.authority}, {":path", r.path}, {"content-type", "application/json"}, {r.keyName, r.key},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			return nil, err
		}
	}
	c.header = block.Bytes()
	c.out.WriteString(http2.ClientPreface)
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}); err != nil {
		return nil, err
	}
	if err := c.framer.WriteWindowUpdate(0, 1<<30); err != nil { // answers are short
		return nil, err
	}
	go c.write()
	go c.read()
	c.wake <- struct{}{}
	return c, nil
}

func (c *conn2) send(_ context.Context, due, until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (len(c.open) >= c.limit || c.window < c.request.size) && c.ended == nil {
		late := time.AfterFunc(time.Until(until), c.changed.Broadcast)
		defer late.Stop()
	}
	for (len(c.open) >= c.limit || c.window < c.request.size) && c.ended == nil {
		if !time.Now().Before(until) {
			return errUnsent
		}
		c.changed.Wait()
	}
	if c.ended != nil {
		return c.ended
	}
	body := c.request.body(make([]byte, 0, c.request.size+64), c.number.Add(1))
	id := c.next
	c.next += 2
	c.open[id] = answer{conn: c.index, due: due, sent: time.Now()}
	c.window -= len(body)
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.header, EndHeaders: true})
	if err = errors.Join(err, c.framer.WriteData(id, true, body)); err != nil {
		return err
	}
	c.signal()
	return nil
}

func (c *conn2) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn2) write() {
	var sending bytes.Buffer
	for range c.wake {
		c.mu.Lock()
		sending.Reset()
		sending.Write(c.out.Bytes())
		c.out.Reset()
		ended := c.ended != nil
		c.mu.Unlock()
		if _, err := c.conn.Write(sending.Bytes()); err != nil || ended {
			return
		}
	}
}

func (c *conn2) read() {
	framer := http2.NewFramer(nil, bufio.NewReaderSize(c.conn, 64<<10))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			c.end(err)
			return
		}
		c.mu.Lock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
					c.limit = int(n)
				}
				_ = c.framer.WriteSettingsAck() // to memory
				c.signal()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.framer.WritePing(true, f.Data) // to memory
				c.signal()
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				c.window += int(f.Increment)
			}
		case *http2.MetaHeadersFrame:
			if a, ok := c.open[f.StreamID]; ok {
				for _, digit := range f.PseudoValue("status") {
					a.status = a.status*10 + int(digit-'0')
				}
				for _, field := range f.RegularFields() {
					if field.Name == "retry-after" {
						a.retryAfter = seconds(field.Value)
					}
				}
				c.open[f.StreamID] = a
				if f.StreamEnded() {
					c.finish(f.StreamID, nil)
				}
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				c.finish(f.StreamID, nil)
			}
		case *http2.RSTStreamFrame:
			c.finish(f.StreamID, http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode})
		}
		c.changed.Broadcast()
		c.mu.Unlock()
	}
}

// finish tells what became of a request. An answer before a reset is what counts.
func (c *conn2) finish(id uint32, err error) {
	a, ok := c.open[id]
	if !ok {
		return
	}
	delete(c.open, id)
	c.changed.Broadcast()
	if a.status == 0 {
		a.err = err
	}
	c.tell(a)
}

func (c *conn2) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = err
	for id := range c.open {
		c.finish(id, err)
	}
	c.changed.Broadcast()
	c.signal()
}

func (c *conn2) close() { c.conn.Close() }
