package dns

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packOf packs a message.
func packOf(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func inURL(packet []byte) string {
	return dohPath + "?dns=" + base64.RawURLEncoding.EncodeToString(packet)
}

func TestRequests(t *testing.T) {
	const (
		ignored = 1 + iota // what the exchange does for an id
		fails
		transfers
	)
	exchange := func(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
		if over != HTTPS || from.Addr() != netip.MustParseAddr(clientAddr) {
			t.Errorf("asked from %v over %v", from, over)
		}
		switch packet[1] {
		case ignored:
			return nil
		case fails:
			return errors.New("broken")
		case transfers:
			for range 3 {
				if err := send(packet); err != nil {
					return err
				}
			}
			t.Error("sent three messages, want an error after the first")
			return nil
		}
		return send(packet)
	}
	handler := dohHandler{streams{exchange, &connections{}}}
	question := packetOf(0, 0)
	for _, test := range []struct {
		name, method, target, kind string
		body                       []byte
		want                       int
	}{
		{name: "GET", method: "GET", target: inURL(question), want: 200},
		{name: "HEAD", method: "HEAD", target: inURL(question), want: 200},
		{name: "other parameters", method: "GET", target: inURL(question) + "&x=1", want: 200},
		{name: "POST", method: "POST", target: dohPath, kind: messageType, body: question, want: 200},
		{name: "a type with a parameter", method: "POST", target: dohPath, kind: "Application/DNS-Message; x=y", body: question, want: 200},
		{name: "the largest", method: "POST", target: dohPath, kind: messageType, body: make([]byte, math.MaxUint16), want: 200},
		{name: "too large", method: "POST", target: dohPath, kind: messageType, body: make([]byte, math.MaxUint16+1), want: 413},
		{name: "no type", method: "POST", target: dohPath, body: question, want: 415},
		{name: "another type", method: "POST", target: dohPath, kind: "application/dns-json", body: question, want: 415},
		{name: "an empty body", method: "POST", target: dohPath, kind: messageType, want: 400},
		{name: "POST with the question in the URL", method: "POST", target: inURL(question), kind: messageType, want: 400},
		{name: "another path", method: "GET", target: "/", want: 404},
		{name: "another method", method: "PUT", target: dohPath, want: 405},
		{name: "no parameter", method: "GET", target: dohPath + "?name=a.test&type=A", want: 400},
		{name: "an empty parameter", method: "GET", target: dohPath + "?dns=", want: 400},
		{name: "two parameters", method: "GET", target: inURL(question) + "&dns=AAAA", want: 400},
		{name: "padding", method: "GET", target: dohPath + "?dns=AAAAAAAAAAAAAAAAAAAAAAA=", want: 400},
		{name: "the other alphabet", method: "GET", target: dohPath + "?dns=AAAA/////////////////w", want: 400},
		{name: "a malformed query", method: "GET", target: dohPath + "?dns=%zz", want: 400},
		{name: "half a header", method: "GET", target: inURL(question[:11]), want: 400},
		{name: "the longest URL", method: "GET", target: inURL(make([]byte, longestQuestion)), want: 200},
		{name: "a longer URL", method: "GET", target: inURL(make([]byte, longestQuestion+1)), want: 414},
		{name: "no question", method: "GET", target: inURL(packetOf(ignored, 0)), want: 400},
		{name: "the exchange fails", method: "GET", target: inURL(packetOf(fails, 0)), want: 500},
		{name: "a zone transfer", method: "GET", target: inURL(packetOf(transfers, 0)), want: 501},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.target, bytes.NewReader(test.body))
			r.RemoteAddr = "[::ffff:" + clientAddr + "]:4242"
			if test.kind != "" {
				r.Header.Set("Content-Type", test.kind)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			got := w.Result()
			if got.StatusCode != test.want {
				t.Fatalf("got %d %s, want %d", got.StatusCode, w.Body, test.want)
			}
			if (got.StatusCode == 405) != (got.Header.Get("Allow") == methods) {
				t.Errorf("got Allow %q", got.Header.Get("Allow"))
			}
			if got, want := got.Header.Get("Cache-Control"), "no-store"; got != want { // none has a record
				t.Errorf("got Cache-Control %q, want %q", got, want)
			}
			if is := got.Header.Get("Content-Type") == messageType; is != (test.want == 200) {
				t.Errorf("got Content-Type %q", got.Header.Get("Content-Type"))
			}
		})
	}
}

func records(t testing.TB, lines ...string) (all []dns.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return all
}

func TestFreshness(t *testing.T) {
	const soa = "test. 3600 SOA ns.test. host.test. 1 2 3 4 60"
	for _, test := range []struct {
		name          string
		answer, other []string
		want          string
	}{
		{"the smallest TTL", []string{"a.test. 30 CNAME b.test.", "b.test. 20 A 192.0.2.1", "b.test. 40 A 192.0.2.2"}, nil, "max-age=20"},
		{"the authority's do not count", []string{"a.test. 30 A 192.0.2.1"}, []string{"test. 5 NS ns.test."}, "max-age=30"},
		{"SOA as an answer is no negative one", []string{soa}, nil, "max-age=3600"},
		{"negative by MINIMUM", nil, []string{soa}, "max-age=60"},
		{"negative by TTL", nil, []string{"test. 7 SOA ns.test. host.test. 1 2 3 4 60"}, "max-age=7"},
		{"a name that leads to none", []string{"a.test. 300 CNAME b.test."}, []string{soa}, "max-age=60"},
		{"zero", []string{"a.test. 0 A 192.0.2.1"}, nil, "max-age=0"},
		{"negative number", []string{"a.test. 2147483648 A 192.0.2.1"}, nil, "max-age=0"},
		{"delegation", nil, []string{"test. 5 NS ns.test."}, "no-store"},
		{"error", nil, nil, "no-store"},
	} {
		m := query("a.test", dns.TypeA, "192.0.2.0/24")
		m.Compress = true
		m.Answer, m.Ns = records(t, test.answer...), records(t, test.other...)
		packet := packOf(t, m)
		handler := dohHandler{streams{func(_ []byte, _ netip.AddrPort, _ Transport, send func([]byte) error) error {
			return send(packet)
		}, &connections{}}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, inURL(packetOf(0, 0)), nil))
		if got := w.Header().Get("Cache-Control"); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// sectionCounts returns the numbers of a message's questions, answers and records of authority, as a header has them.
func sectionCounts(m *dns.Msg) (c []byte) {
	for _, n := range []int{len(m.Question), len(m.Answer), len(m.Ns)} {
		c = binary.BigEndian.AppendUint16(c, uint16(n))
	}
	return c
}

// FuzzFreshness holds the reader of TTLs to package miekg/dns, for messages that it can read.
func FuzzFreshness(f *testing.F) {
	m := query("a.test", dns.TypeA, "192.0.2.0/24")
	m.Answer = records(f, "a.test. 30 CNAME b.test.", "b.test. 20 A 192.0.2.1")
	m.Ns = records(f, "test. 3600 SOA ns.test. host.test. 1 2 3 4 60")
	f.Add(packOf(f, m))
	m.Compress = true
	f.Add(packOf(f, m))
	f.Add(packOf(f, m)[:40])
	f.Fuzz(func(t *testing.T, packet []byte) {
		got, ok := freshness(packet)
		var m dns.Msg
		if m.Unpack(packet) != nil || !bytes.Equal(packet[4:10], sectionCounts(&m)) {
			return // broken, or cut where the package does not mind
		}
		want, found := uint32(math.MaxUint32), false
		clean := func(ttl uint32) uint32 {
			if ttl > math.MaxInt32 {
				return 0
			}
			return ttl
		}
		for _, rr := range m.Answer {
			want, found = min(want, clean(rr.Header().Ttl)), true
		}
		for _, rr := range m.Ns {
			soa, is := rr.(*dns.SOA)
			switch {
			case is && soa.Hdr.Rdlength >= 22:
				want, found = min(want, clean(min(soa.Hdr.Ttl, soa.Minttl))), true
			case rr.Header().Rrtype == dns.TypeSOA:
				want, found = min(want, clean(rr.Header().Ttl)), true
			}
		}
		if ok != found || ok && got != want {
			t.Errorf("got %d, %v, want %d, %v for %v", got, ok, want, found, &m)
		}
	})
}

// FuzzQuestionOf holds what the parameter gives to be what it was made of.
func FuzzQuestionOf(f *testing.F) {
	f.Add(strings.TrimPrefix(inURL(packetOf(1, 0)), dohPath+"?"))
	f.Add("dns=")
	f.Add("dns=AB==&dns=A")
	f.Add("x=1;dns=AAAA&%64ns=AAAA")
	f.Fuzz(func(t *testing.T, query string) {
		packet, err := questionOf(query)
		if refused := (*dohError)(nil); err != nil && (!errors.As(err, &refused) || refused.status < 400 || refused.status > 499) {
			t.Fatalf("%q: got error %v, want one with a code of the client's fault", query, err)
		}
		if err != nil {
			return
		}
		if len(packet) == 0 || len(packet) > longestQuestion {
			t.Errorf("%q: got %d octets", query, len(packet))
		}
		again, err := questionOf("dns=" + base64.RawURLEncoding.EncodeToString(packet))
		if err != nil || !bytes.Equal(again, packet) {
			t.Errorf("%q: got %x, and %x, %v of that", query, packet, again, err)
		}
	})
}
