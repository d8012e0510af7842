package forward

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/topology"
)

// TestHTTP2UnderLoad sends bodies of many sizes to net/http's server with few streams and small windows.
func TestHTTP2UnderLoad(t *testing.T) {
	ap := newStore(t, "ap")
	server := httptest.NewUnstartedServer(ap)
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 7, MaxReceiveBufferPerConnection: 1 << 16, MaxReceiveBufferPerStream: 1 << 15}
	server.StartTLS()
	t.Cleanup(server.Close)
	w := newWorld(t, map[string]string{"ap": server.URL}, nil, func(c *Config) { c.Roots = rootsOf(server) })
	w.run(t)
	sent := w.postAll(t, 600, func(i int) string { return strings.Repeat(fmt.Sprint(i), i*i%40_000/2) }, nil)
	for id, s := range w.settles(t, len(sent)) {
		if !s.Acknowledged || ap.bodies[id] != sent[id] {
			t.Errorf("%s: %+v, and %d of %d octets", id, s, len(ap.bodies[id]), len(sent[id]))
		}
	}
	if s := w.Stats(); s.Retried != 0 {
		t.Errorf("%d were sent again", s.Retried)
	}
}

// TestHTTP2EarlyAnswers has a server answer before it has read, and close the stream.
func TestHTTP2EarlyAnswers(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(413) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	w := newWorld(t, map[string]string{"ap": server.URL}, nil, func(c *Config) { c.Roots = rootsOf(server) })
	w.run(t)
	for range 5 {
		w.post(t, strings.Repeat("long", 200_000), nil)
	}
	for id, s := range w.settles(t, 5) {
		if s.Acknowledged || !strings.HasPrefix(s.Reason, "cluster ap answered 413") {
			t.Errorf("%s: got %+v", id, s)
		}
	}
}

// TestHTTP2ServersThatMisbehave has the frames of a connection go wrong in many ways; a second cluster gets all.
func TestHTTP2ServersThatMisbehave(t *testing.T) {
	head := func(fr *http2.Framer, id uint32, end bool, fields ...string) {
		var block strings.Builder
		encoder := hpack.NewEncoder(&block)
		for i := 0; i < len(fields); i += 2 {
			encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: end})
	}
	for name, do := range map[string]func(fr *http2.Framer, id uint32){
		"no status":          func(fr *http2.Framer, id uint32) { head(fr, id, true, "a", "b") },
		"two statuses":       func(fr *http2.Framer, id uint32) { head(fr, id, true, ":status", "202", ":status", "202") },
		"upper case":         func(fr *http2.Framer, id uint32) { head(fr, id, true, ":status", "202", "A", "b") },
		"connection field":   func(fr *http2.Framer, id uint32) { head(fr, id, true, ":status", "202", "connection", "close") },
		"status at the end":  func(fr *http2.Framer, id uint32) { head(fr, id, true, "a", "b", ":status", "202") },
		"interim for an end": func(fr *http2.Framer, id uint32) { head(fr, id, true, ":status", "103") },
		"body first":         func(fr *http2.Framer, id uint32) { fr.WriteData(id, true, []byte("x")) },
		"another stream":     func(fr *http2.Framer, id uint32) { head(fr, id+100, true, ":status", "202") },
		"even stream":        func(fr *http2.Framer, id uint32) { head(fr, id+1, true, ":status", "202") },
		"reset":              func(fr *http2.Framer, id uint32) { fr.WriteRSTStream(id, http2.ErrCodeInternal) },
		"refused":            func(fr *http2.Framer, id uint32) { fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"goes away":          func(fr *http2.Framer, id uint32) { fr.WriteGoAway(0, http2.ErrCodeNo, nil) },
		"window overflow":    func(fr *http2.Framer, id uint32) { fr.WriteWindowUpdate(0, 1<<31-1) },
		"push": func(fr *http2.Framer, id uint32) {
			fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		},
		"long head": func(fr *http2.Framer, id uint32) {
			head(fr, id, true, ":status", "202", "a", strings.Repeat("0", 20_000))
		},
		"bad compression": func(fr *http2.Framer, id uint32) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true, EndStream: true})
		},
		"flood of pings": func(fr *http2.Framer, id uint32) {
			for range maxIdleFrames + 1 {
				if fr.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			eu := newStore(t, "eu")
			var streams atomic.Int64
			bad := scripted(t, func(_ int, c net.Conn, _ *bufio.Reader) {
				io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				fr := http2.NewFramer(c, c)
				fr.WriteSettings()
				for {
					frame, err := fr.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := frame.(*http2.HeadersFrame); ok {
						streams.Add(1)
						do(fr, h.StreamID)
					}
				}
			})
			w := newWorld(t, map[string]string{"ap": bad, "eu": eu.serve(t).URL}, nil, func(c *Config) { c.speakHTTP2 = bad })
			w.run(t)
			const n = 30
			for range n {
				w.post(t, "body", nil)
			}
			for id, s := range w.settles(t, n) {
				if s.Cluster != "eu" {
					t.Errorf("%s: got %+v", id, s)
				}
			}
			if streams.Load() == 0 {
				t.Error("the server was not asked")
			}
		})
	}
}

// FuzzHTTP2 has the server send anything: no panic, no answer that is taken twice, and nothing on the way is forgotten.
func FuzzHTTP2(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"))
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		forwarder := New(Config{Snapshot: func() *topology.Snapshot { return nil }, Spool: &steady{}})
		c := &conn{
			endpoint: &endpoint{forwarder: forwarder, cluster: &cluster{name: "ap"}, limit: firstLimit, maximum: 256, bit: 1},
			net:      near, raw: near, wakeup: make(chan struct{}, 1), gone: make(chan struct{}),
		}
		h := newHTTP2(c)
		for range 3 {
			j := &job{item: &spool.Item{Envelope: &spool.Envelope{ID: "x", Received: time.Now()}}, sent: time.Now()}
			h.streams[h.nextID] = &stream{job: j, id: h.nextID}
			h.nextID += 2
			h.inFlight++
			forwarder.inFlight++
		}
		go func() {
			far.Write(data)
			far.Close()
		}()
		_ = h.read()
		near.Close()
		if h.inFlight != len(h.streams) || forwarder.inFlight != h.inFlight {
			t.Errorf("%d and %d are on the way, of %d streams", h.inFlight, forwarder.inFlight, len(h.streams))
		}
	})
}
