package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// serveTLS answers each connection with one octet, and closes it. It asks for the configuration each time.
func serveTLS(t testing.TB, config func() *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				secured := tls.Server(c, config())
				_, _ = secured.Write([]byte{1}) // behind the tickets
				_ = secured.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func connect(at, name string, roots *x509.CertPool, cache tls.ClientSessionCache) (tls.ConnectionState, error) {
	c, err := tls.Dial("tcp", at, &tls.Config{ServerName: name, RootCAs: roots, ClientSessionCache: cache})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 1))
	return c.ConnectionState(), err
}

// TestTicketsOfSeveralPoPs has a client resume at another PoP than the one that it got its ticket from, over rotations that the PoPs learn
// of at different times.
func TestTicketsOfSeveralPoPs(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.pem(month, "a.example")
	bundle := map[string][]byte{"a.example": append(cert, key...)}
	pop := func() (*Source, string) {
		s := open(t, Config{})
		s.Issued(bundle)
		return s, serveTLS(t, func() *tls.Config {
			c := &tls.Config{GetCertificate: s.Certificate, MinVersion: tls.VersionTLS13}
			c.SetSessionTicketKeys(s.TicketKeys())
			return c
		})
	}
	first, atFirst := pop()
	second, atSecond := pop()
	cache := tls.NewLRUClientSessionCache(1)
	expect := func(what, at string, want bool) {
		t.Helper()
		state, err := connect(at, "a.example", a.Pool(), cache)
		if err != nil || state.DidResume != want {
			t.Errorf("%s: resumed %v, %v; want %v", what, state.DidResume, err, want)
		}
	}
	expect("a stranger", atFirst, false)
	expect("the same PoP, with keys of its own", atFirst, true)
	expect("another PoP, with keys of its own", atSecond, false)

	g := NewGenerations(time.Now())
	first.Tickets(g.Marshal())
	second.Tickets(g.Marshal())
	expect("keys that are shared are others", atFirst, false)
	expect("another PoP", atSecond, true)
	expect("and back", atFirst, true)

	next := g.Rotate(time.Now())
	first.Tickets(next.Marshal())
	expect("over a rotation, at the PoP that has it", atFirst, true) // and gets a ticket of the new key
	expect("at the PoP that lags", atSecond, true)                   // and gets one of the old key
	second.Tickets(next.Marshal())
	expect("when it has it too", atSecond, true)

	held, _ := cache.Get("a.example")
	first.Tickets(next.Rotate(time.Now()).Marshal())
	cache.Put("a.example", held)
	expect("after one more rotation", atFirst, true)
	first.Tickets(next.Rotate(time.Now()).Rotate(time.Now()).Marshal())
	cache.Put("a.example", held)
	expect("after two", atFirst, false)

	before := first.TicketKeys()
	for _, broken := range [][]byte{[]byte("nonsense"), {}, nil, []byte(`{"next":"AA=="}`)} {
		first.Tickets(broken)
	}
	if got := first.TicketKeys(); &got[0] != &before[0] {
		t.Error("broken keys took effect")
	}
}

func TestOwnTicketsAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{})
		first := s.TicketKeys()
		time.Sleep(RotationPeriod - time.Second)
		s.Reload()
		if got := s.TicketKeys(); &got[0] != &first[0] {
			t.Error("renewed too soon")
		}
		time.Sleep(time.Second)
		s.Reload()
		got := s.TicketKeys()
		if got[0] != first[1] || got[2] != first[0] {
			t.Error("not rotated after a period")
		}
	})
}

func TestDue(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := NewGenerations(now)
	for after, want := range map[time.Duration]bool{
		0: false, RotationPeriod - 1: false, RotationPeriod: true, -RotationPeriod / 2: false, -2 * RotationPeriod: true, // of a clock that was wrong
	} {
		if got := g.Due(now.Add(after), RotationPeriod); got != want {
			t.Errorf("after %v: got %v", after, got)
		}
	}
}

// FuzzGenerations reads what was sealed by who else has the recipients.
func FuzzGenerations(f *testing.F) {
	f.Add(NewGenerations(time.Unix(1_800_000_000, 0)).Marshal())
	f.Add([]byte(`{"rotated":"2027-01-15T08:00:00Z","next":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","current":"","previous":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := ParseGenerations(text)
		if err != nil {
			return
		}
		var again generationsText
		if json.Unmarshal(text, &again) != nil || !bytes.Equal(again.Current, g.Current[:]) || g.Next == [32]byte{} {
			t.Errorf("taken: %q", text)
		}
	})
}
