package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// secondary is a secondary server on loopback that hands on what it receives, and answers what it is told to.
type secondary struct {
	at       netip.AddrPort
	received chan *dns.Msg
}

// newSecondary starts one. Answer returns what it answers its n-th message with, from 1 on, or nil for nothing.
func newSecondary(t *testing.T, keys []TSIGKey, answer func(n int, m *dns.Msg) *dns.Msg) secondary {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := secondary{conn.LocalAddr().(*net.UDPAddr).AddrPort(), make(chan *dns.Msg, 100)}
	var n atomic.Int32
	server := &dns.Server{PacketConn: conn, TsigSecret: map[string]string{}, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	for _, key := range keys {
		server.TsigSecret[key.Name] = encoded(key.Secret)
	}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		if m.IsTsig() != nil && w.TsigStatus() != nil {
			t.Errorf("the signature of %v does not verify: %v", m, w.TsigStatus())
		}
		s.received <- m
		if a := answer(int(n.Add(1)), m); a != nil {
			w.WriteMsg(a)
		}
	})
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		server.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// with makes an answer of a code.
func with(rcode int) func(int, *dns.Msg) *dns.Msg {
	return func(_ int, m *dns.Msg) *dns.Msg {
		a := new(dns.Msg).SetReply(m)
		a.Rcode = rcode
		return a
	}
}

func TestNotifyTries(t *testing.T) {
	s := serve(t, example(), nil)
	zone := s.serving.Load().index.zones[wireName(zoneName+".")]
	const short, long = 300 * time.Millisecond, time.Minute
	for _, test := range []struct {
		name    string
		serial  uint32
		timeout time.Duration
		answer  func(int, *dns.Msg) *dns.Msg
		want    int // messages
	}{
		{"answers", zone.soa.Serial, long, with(dns.RcodeSuccess), 1},
		{"answers the second try", zone.soa.Serial, time.Second, func(n int, m *dns.Msg) *dns.Msg {
			if n < 2 {
				return nil
			}
			return with(dns.RcodeSuccess)(n, m)
		}, 2},
		{"fails, then answers", zone.soa.Serial, long, func(n int, m *dns.Msg) *dns.Msg {
			if n < 3 {
				return with(dns.RcodeServerFailure)(n, m)
			}
			return with(dns.RcodeSuccess)(n, m)
		}, 3},
		{"refuses", zone.soa.Serial, long, with(dns.RcodeRefused), notifyTries},
		{"is silent", zone.soa.Serial, short, func(int, *dns.Msg) *dns.Msg { return nil }, notifyTries},
		{"answers another question", zone.soa.Serial, short, func(n int, m *dns.Msg) *dns.Msg {
			a := with(dns.RcodeSuccess)(n, m)
			a.Id++
			return a
		}, notifyTries},
		{"refuses what is no longer new", zone.soa.Serial - 1, long, with(dns.RcodeRefused), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := newSecondary(t, nil, test.answer)
			s.tell(t.Context(), notification{NotifyTarget{Addr: at.at}, zone.name, test.serial}, nil, patience{test.timeout, time.Millisecond})
			if got := len(at.received); got != test.want {
				t.Errorf("got %d messages, want %d", got, test.want)
			}
		})
	}
}

// TestNotifyTellsTheCode notifies a secondary that does not have the key: what it answers is told, and not only that it has not signed it.
func TestNotifyTellsTheCode(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		n, from, err := conn.ReadFrom(buffer)
		var m dns.Msg
		if err != nil || m.Unpack(buffer[:n]) != nil {
			return
		}
		a := with(dns.RcodeNotAuth)(1, &m)
		a.Extra = []dns.RR{&dns.TSIG{
			Hdr: dns.RR_Header{Name: m.IsTsig().Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: m.IsTsig().Algorithm,
			TimeSigned: m.IsTsig().TimeSigned, Fudge: 300, OrigId: m.Id, Error: dns.RcodeBadKey,
		}}
		if packet, err := a.Pack(); err == nil {
			conn.WriteTo(packet, from)
		}
	}()
	defer func() { conn.Close(); <-done }()
	key := transferKeys()[2]
	n := notification{NotifyTarget{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Key: key.Name}, zoneName + ".", 1}
	if err := n.send(t.Context(), []TSIGKey{key}, time.Now(), time.Minute); err == nil || !strings.Contains(err.Error(), "it answers NOTAUTH") {
		t.Errorf("got %v", err)
	}
}

// TestNotifyEnds ends while a secondary is silent.
func TestNotifyEnds(t *testing.T) {
	s := serve(t, example(), nil)
	at := newSecondary(t, nil, func(int, *dns.Msg) *dns.Msg { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tell(ctx, notification{NotifyTarget{Addr: at.at}, zoneName + ".", 1}, nil, patience{time.Hour, time.Hour})
	}()
	<-at.received
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}

// TestNotify runs a server that has secondaries, one of them with a key, and gives it a topology anew.
func TestNotify(t *testing.T) {
	key := transferKeys()[2]
	open, keyed := newSecondary(t, nil, with(dns.RcodeSuccess)), newSecondary(t, []TSIGKey{key}, func(_ int, m *dns.Msg) *dns.Msg {
		return new(dns.Msg).SetReply(m).SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	})
	s := signedAt(t, time.Now, manifold(), nil, zoneName)
	settings := s.settings
	settings.TSIG = []TSIGKey{key}
	settings.Notify = []NotifyTarget{{Addr: open.at}, {Addr: keyed.at, Key: "HMAC-SHA256.key"}}
	s.Configure(settings)
	listen(t, s)
	for _, at := range []secondary{open, keyed} {
		told := map[string]uint32{}
		for range 2 {
			select {
			case m := <-at.received:
				if m.Opcode != dns.OpcodeNotify || !m.Authoritative || len(m.Answer) != 1 || m.Question[0].Qtype != dns.TypeSOA || (m.IsTsig() != nil) != (at == keyed) {
					t.Errorf("got %v", m)
				}
				told[m.Question[0].Name] = m.Answer[0].(*dns.SOA).Serial
			case <-time.After(10 * time.Second):
				t.Fatal("a secondary is not told")
			}
		}
		for _, z := range s.serving.Load().index.zones {
			if told[z.name] != z.soa.Serial {
				t.Errorf("%s: told %d, want %d", z.name, told[z.name], z.soa.Serial)
			}
		}
	}
}
