package packet

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/virtual"
)

// inWorld runs a test of two hosts in virtual time. It must not touch t inside but by Error.
func inWorld(t *testing.T, c Config, work func(n *Network, a, b netip.Addr) error) {
	t.Helper()
	if err := virtual.Run(func() error {
		n := New(c)
		err := work(n, n.Host("a"), n.Host("b"))
		n.Wait()
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func way(w Way) func(*Host, *Host) (Way, error) {
	return func(*Host, *Host) (Way, error) { return w, nil }
}

// flood sends datagrams of a size from a to b, one every gap, and returns when those arrived that did, by their order of sending.
func flood(n *Network, a, b netip.Addr, datagrams, size int, gap time.Duration) (arrived []time.Duration, order []int, err error) {
	from, err := n.ListenPacket(netip.AddrPortFrom(a, 0))
	if err != nil {
		return nil, nil, err
	}
	defer from.Close()
	to, err := n.ListenPacket(netip.AddrPortFrom(b, 53))
	if err != nil {
		return nil, nil, err
	}
	start := time.Now()
	arrived = make([]time.Duration, datagrams)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 2000)
		for {
			if _, _, err := to.ReadFrom(buffer); err != nil {
				return
			}
			i := int(buffer[0]) | int(buffer[1])<<8
			arrived[i] = time.Since(start)
			order = append(order, i)
		}
	}()
	for i := range datagrams {
		data := make([]byte, size)
		data[0], data[1] = byte(i), byte(i>>8)
		if _, err := from.WriteTo(data, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b, 53))); err != nil {
			return nil, nil, err
		}
		if gap > 0 {
			<-time.After(gap)
		}
	}
	n.Wait()
	virtual.Settle()
	to.Close()
	<-done
	return arrived, order, nil
}

func TestDelay(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 40 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		arrived, order, err := flood(n, a, b, 100, 100, 0)
		for i, at := range arrived {
			if at != 40*time.Millisecond || order[i] != i {
				t.Errorf("datagram %d came at %v as number %d", i, at, order[i])
			}
		}
		return err
	})
}

func TestLossAndJitter(t *testing.T) {
	w := Way{Delay: 40 * time.Millisecond, Loss: 0.1, Jitter: time.Millisecond}
	var before []time.Duration
	for seed := range uint64(3) {
		inWorld(t, Config{Way: way(w), Seed: seed / 2}, func(n *Network, a, b netip.Addr) error {
			arrived, order, err := flood(n, a, b, 2000, 100, 20*time.Millisecond)
			if got := 2000 - len(order); got < 150 || got > 250 {
				t.Errorf("%d of 2000 were lost", got)
			}
			early, last := 0, 0
			for i, at := range arrived {
				if at == 0 {
					continue
				}
				if took := at - time.Duration(i)*20*time.Millisecond; took < 39*time.Millisecond || took > 60*time.Millisecond {
					t.Errorf("datagram %d took %v", i, took)
				} else if took < 40*time.Millisecond-time.Duration(0.146*float64(time.Millisecond)) { // ln 2 - 0.839, the median of one way
					early++
				}
			}
			for _, i := range order {
				if i < last {
					t.Errorf("datagram %d came after %d", i, last)
				}
				last = i
			}
			if part := float64(early) / float64(len(order)); part < 0.45 || part > 0.55 {
				t.Errorf("%v came before the median", part)
			}
			same := true
			for i := range before {
				same = same && before[i] == arrived[i]
			}
			if before != nil && same != (seed == 1) {
				t.Errorf("equal seeds are equal: %v; run %d", same, seed)
			}
			before = arrived
			return err
		})
	}
}

func TestReordering(t *testing.T) {
	w := Way{Delay: 40 * time.Millisecond, Reorder: 0.2}
	inWorld(t, Config{Way: way(w)}, func(n *Network, a, b netip.Addr) error {
		_, order, err := flood(n, a, b, 1000, 100, 5*time.Millisecond)
		late, last := 0, -1
		for _, i := range order {
			if i < last {
				late++
			}
			last = max(last, i)
		}
		if len(order) != 1000 || late < 150 || late > 250 {
			t.Errorf("%d came, %d of them after their successor", len(order), late)
		}
		return err
	})
}

func TestMTU(t *testing.T) {
	inWorld(t, Config{Way: way(Way{}), MTU: 1400}, func(n *Network, a, b netip.Addr) error {
		_, fits, err := flood(n, a, b, 1, 1400-28, 0)
		if err != nil {
			return err
		}
		_, over, err := flood(n, a, b, 1, 1400-27, 0)
		if len(fits) != 1 || len(over) != 0 || n.Counts().TooLong != 1 {
			t.Errorf("%d and %d came, counts are %+v", len(fits), len(over), n.Counts())
		}
		return err
	})
}

// A line of 1 Mbit/s sends 972 octets and 28 of headers in 8 ms, and keeps others waiting for 100 ms at most.
func TestBandwidth(t *testing.T) {
	for _, line := range []Line{{Up: 1e6}, {Down: 1e6}} {
		inWorld(t, Config{Way: way(Way{Delay: 40 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
			if line.Up > 0 {
				n.Add(&Host{Addr: a, Line: line})
			} else {
				n.Add(&Host{Addr: b, Line: line})
			}
			arrived, order, err := flood(n, a, b, 20, 972, 0)
			if len(order) != 13 || n.Counts().Dropped != 7 {
				t.Errorf("%d came, counts are %+v", len(order), n.Counts())
			}
			for i, at := range arrived[:13] {
				if want := 40*time.Millisecond + time.Duration(i+1)*8*time.Millisecond; at != want {
					t.Errorf("datagram %d came at %v, want %v", i, at, want)
				}
			}
			return err
		})
	}
}

func TestFaults(t *testing.T) {
	inWorld(t, Config{Way: way(Way{Delay: 40 * time.Millisecond})}, func(n *Network, a, b netip.Addr) error {
		n.Break(func(from, to netip.Addr) Fault { return Fault{Delay: time.Second} })
		arrived, _, err := flood(n, a, b, 1, 100, 0)
		if err != nil {
			return err
		}
		if arrived[0] != 1040*time.Millisecond {
			t.Errorf("a delayed datagram came at %v", arrived[0])
		}
		n.Break(func(from, to netip.Addr) Fault { return Fault{Cut: from == a} })
		_, order, err := flood(n, a, b, 10, 100, 0)
		if err != nil {
			return err
		}
		n.Break(nil)
		_, again, err := flood(n, a, b, 10, 100, 0)
		if len(order) != 0 || len(again) != 10 {
			t.Errorf("%d came through a cut, %d after it", len(order), len(again))
		}
		return err
	})
}
