package intakeclient

import (
	"net/netip"
	"testing"
)

// TestKeep makes connections ahead, and closes those that are not wanted.
func TestKeep(t *testing.T) {
	ca := newCA(t)
	a, b, third := startServer(t, ca), startServer(t, ca), startServer(t, ca)
	for _, tcp := range []bool{false, true} {
		c := newClient(t, Config{Roots: ca.Pool(), TCP: tcp})
		for _, s := range []*server{a, b, third} {
			e := Endpoint{Target: "x", Addr: s.at}
			if c.Connected(e, host) {
				t.Errorf("TCP %v: connected before", tcp)
			}
			got, err := c.Connect(t.Context(), []Endpoint{e}, host)
			if err != nil || got != e || !c.Connected(e, host) {
				t.Fatalf("TCP %v: got %v, %v", tcp, got, err)
			}
		}
		answer, err := c.Post(t.Context(), []Endpoint{{Target: "x", Addr: a.at}}, post)
		if err != nil || !answer.Reused {
			t.Errorf("TCP %v: got %+v, %v", tcp, answer, err)
		}
		c.Keep(func(addr netip.AddrPort) bool { return addr != b.at })
		if !c.Connected(Endpoint{Target: "x", Addr: a.at}, host) || c.Connected(Endpoint{Target: "x", Addr: b.at}, host) || len(c.conns) != 2 {
			t.Errorf("TCP %v: %d connections are left", tcp, len(c.conns))
		}
		if _, err := c.Connect(t.Context(), nil, host); err != ErrNoAddress {
			t.Errorf("without endpoints: got %v", err)
		}
	}
}
