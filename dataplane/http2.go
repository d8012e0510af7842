package dataplane

//lint:file-ignore SA1019 what net/http has in its place gives nobody a look at the connection

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net/http"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// serveHTTP2 has HTTP/2 be served below a meter: net/http's own is given connections that nobody can look into, and lets a client reset as
// many streams as it likes, which each cost a goroutine and a request (CVE-2023-44487).
func (s *tcpServer) serveHTTP2() error {
	server := &http2.Server{}
	if err := http2.ConfigureServer(s.http, server); err != nil {
		return err
	}
	s.http.TLSNextProto[http2.NextProtoTLS] = func(hs *http.Server, conn *tls.Conn, h http.Handler) {
		options := &http2.ServeConnOpts{BaseConfig: hs, Handler: h}
		if with, ok := h.(interface{ BaseContext() context.Context }); ok { // net/http's, for just this
			options.Context = with.BaseContext()
		}
		c := connectionOver(conn)
		c.metered.Store(true)
		server.ServeConn(&meteredConn{Conn: conn, connection: c, answered: frameMeter{preface: len(http2.ClientPreface)}}, options)
	}
	return nil
}

// maxIdleFrames is how many frames that ask for nothing a client of HTTP/2 may send on a connection in a second: PING, SETTINGS, PRIORITY,
// and DATA and CONTINUATION without anything in it (CVE-2019-9512 to 9518).
const maxIdleFrames = 500

// meteredConn counts the frames of HTTP/2 that a client sends. One that sends too many of a kind is told so, by GOAWAY with
// ENHANCE_YOUR_CALM, and nothing more is read from it; http2 closes the connection a second later.
//
// A reset of a stream that has been answered is no sign of ill will: clients send one when an answer comes before they have sent their body, or
// when they do not read it to its end.
type meteredConn struct {
	*tls.Conn
	connection *connection
	frames     frameMeter   // of the client
	answered   frameMeter   // of the server
	answers    atomic.Int64 // less the resets that came for them
	over       bool
}

// Write implements net.Conn. It has one caller at a time.
func (c *meteredConn) Write(p []byte) (int, error) {
	c.answered.count(p)
	c.answers.Add(int64(c.answered.headers))
	c.answered.headers = 0
	return c.Conn.Write(p)
}

// Read implements net.Conn. It has one caller at a time.
func (c *meteredConn) Read(p []byte) (int, error) {
	if c.over {
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm) // http2 makes a GOAWAY of it
	}
	n, err := c.Conn.Read(p)
	resets, idle := c.frames.count(p[:n])
	for ; resets > 0 && c.answers.Load() > 0; resets-- {
		c.answers.Add(-1)
	}
	if c.over = (resets > 0 || idle > 0) && c.connection.tooMany(resets, idle); c.over {
		if c.connection.charge != nil {
			c.connection.charge()
		}
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// frameMeter reads the heads of frames (RFC 9113 section 4.1) of a client as they pass by, in pieces of any length.
type frameMeter struct {
	head    [9]byte
	have    int    // octets of head
	skip    uint32 // octets of the present frame that are still to come
	preface int    // octets of the connection preface that have passed; a server sends none
	headers int    // HEADERS frames so far
}

// count returns how many frames of two kinds begin in a piece: RST_STREAM, and those that ask for nothing.
func (m *frameMeter) count(p []byte) (resets, idle int) {
	if m.preface < len(http2.ClientPreface) {
		n := min(len(p), len(http2.ClientPreface)-m.preface)
		m.preface += n
		p = p[n:]
	}
	for len(p) > 0 {
		if n := min(uint32(len(p)), m.skip); n > 0 {
			m.skip -= n
			p = p[n:]
			continue
		}
		n := copy(m.head[m.have:], p)
		m.have += n
		if p = p[n:]; m.have < len(m.head) {
			return resets, idle
		}
		m.have, m.skip = 0, binary.BigEndian.Uint32(m.head[:])>>8
		switch http2.FrameType(m.head[3]) {
		case http2.FrameHeaders:
			m.headers++
		case http2.FrameRSTStream:
			resets++
		case http2.FramePing, http2.FrameSettings, http2.FramePriority, http2.FramePriorityUpdate:
			idle++
		case http2.FrameData:
			if m.skip == 0 && http2.Flags(m.head[4])&http2.FlagDataEndStream == 0 {
				idle++
			}
		case http2.FrameContinuation:
			if m.skip == 0 && http2.Flags(m.head[4])&http2.FlagContinuationEndHeaders == 0 {
				idle++
			}
		}
	}
	return resets, idle
}
