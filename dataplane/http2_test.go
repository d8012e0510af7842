package dataplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// answers202 takes whatever comes.
type answers202 struct{}

func (answers202) Answer(_ *exchange.Request, a *exchange.Answer) { a.Status = http.StatusAccepted }

// TestFloodsOfHTTP2 has clients send what costs them nothing, on and on: they are told to be calm, and another client is served.
func TestFloodsOfHTTP2(t *testing.T) {
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := sockettest.Both(t)
	f := NewFront(FrontConfig{Limits: Limits{HandshakesPerPrefix: 10_000, Handshakes: 10_000}}) // cut off, a client costs a second of them
	f.Handle(answers202{})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- f.Serve(ctx, Listeners{UDP: udp, TCP: tcp, TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Certificate("127.0.0.1", time.Now())
		}}})
	}()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", "/"}} {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true})
	}
	head := block.Bytes()
	for name, flood := range map[string]func(f *http2.Framer, stream uint32) error{
		"resets": func(f *http2.Framer, stream uint32) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head, EndHeaders: true}); err != nil {
				return err
			}
			return f.WriteRSTStream(stream, http2.ErrCodeCancel)
		},
		"pings":    func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"settings": func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		"nothing": func(f *http2.Framer, stream uint32) error {
			if stream == 1 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true})
			}
			return f.WriteData(1, false, nil)
		},
	} {
		conn, err := tls.Dial("tcp", tcp.Addr().String(), &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(name, err)
		}
		flooded := make(chan error, 1)
		go func() {
			framer := http2.NewFramer(conn, nil)
			_, err := io.WriteString(conn, http2.ClientPreface)
			err = errors.Join(err, framer.WriteSettings())
			for stream := uint32(1); err == nil && stream < 1<<31; stream += 2 {
				err = flood(framer, stream)
			}
			flooded <- err
		}()
		calm, framer := false, http2.NewFramer(nil, conn)
		for !calm {
			frame, err := framer.ReadFrame()
			if err != nil {
				break
			}
			if away, ok := frame.(*http2.GoAwayFrame); ok {
				calm = away.ErrCode == http2.ErrCodeEnhanceYourCalm
			}
		}
		conn.Close()
		if <-flooded; !calm {
			t.Errorf("%s: nobody said that it was too much", name)
		}
	}
	others := frontClients(ca.Pool())
	for range maxCancelled {
		if err := post(others[1], "https://"+tcp.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	others[1].(*http.Transport).CloseIdleConnections()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// FuzzFrameMeter holds what is counted in pieces to what is counted as a whole, by a reader that is as plain as can be.
func FuzzFrameMeter(f *testing.F) {
	ping := []byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
	reset := []byte{0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8}
	empty := []byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 1}
	f.Add(bytes.Join([][]byte{ping, reset, empty, reset}, nil), uint8(1))
	f.Add(reset[:11], uint8(3))
	f.Add([]byte{255, 255, 255, 3, 0}, uint8(200))
	f.Fuzz(func(t *testing.T, frames []byte, piece uint8) {
		wantResets, wantIdle := 0, 0
		for rest := frames; len(rest) >= 9; {
			length := int(binary.BigEndian.Uint32(append([]byte{0}, rest[:3]...)))
			switch kind, flags := rest[3], rest[4]; {
			case kind == 3:
				wantResets++
			case kind == 2, kind == 4, kind == 6, kind == 16, kind == 0 && length == 0 && flags&1 == 0, kind == 9 && length == 0 && flags&4 == 0:
				wantIdle++
			}
			rest = rest[min(len(rest), 9+length):]
		}
		m, resets, idle := frameMeter{}, 0, 0
		for all := append([]byte(http2.ClientPreface), frames...); len(all) > 0; {
			n := min(len(all), int(piece)+1)
			r, i := m.count(all[:n])
			resets, idle, all = resets+r, idle+i, all[n:]
		}
		if resets != wantResets || idle != wantIdle {
			t.Errorf("counted %d and %d, want %d and %d", resets, idle, wantResets, wantIdle)
		}
	})
}
