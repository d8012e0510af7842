package direct

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Beat is the time between two signs of life.
	Beat = time.Second
	// Patience is how long a node counts as alive after a sign of life.
	Patience = 5 * time.Second
	// askPause is the time between two questions for one report, at least, and between two answers to one node.
	askPause = 300 * time.Millisecond
	// resend is how often a report is sent again to those who get all reports. It mends what a lost datagram and a lost question left.
	resend = 30 * time.Second
)

// Peer is another node, as its report in etcd tells.
type Peer struct {
	Key  ed25519.PublicKey
	Addr netip.AddrPort // where it takes reports; invalid when it takes none
}

// Config says what an exchange needs.
type Config struct {
	Name  string // of this node, such as pop:sin1
	Key   ed25519.PrivateKey
	Conn  net.PacketConn                    // closed by Run
	Peer  func(name string) Peer            // a node that is known; the zero Peer for others. It is called for each datagram
	All   func() []string                   // the names of the nodes that get every report
	Heard func(name string, report []byte)  // a new report of another node
	Sign  func(name string, wall time.Time) // a sign of life of another node, and what its wall clock said when it gave it; nil for nobody
	Now   func() time.Time                  // default time.Now
	// Incarnation is larger than all of this node's before, in nanoseconds since 1970; default the time when it begins.
	Incarnation uint64
	Log         *slog.Logger
}

// Exchange sends this node's reports, and takes those of others. It is safe for concurrent use.
type Exchange struct {
	config      Config
	began       time.Time
	incarnation uint64
	Counts      Counts

	mu      sync.Mutex
	report  []byte // the newest
	number  uint64 // of it
	senders map[string]*sender
}

// Counts are what has become of datagrams.
type Counts struct {
	Sent, Received, Replayed, Forged, Malformed, Unknown atomic.Uint64
}

// sender is what is known of another node.
type sender struct {
	key                   ed25519.PublicKey // by which all this was signed
	incarnation, sequence uint64            // of the newest report that is whole
	sent                  uint64            // of the newest datagram of the incarnation
	alive                 time.Time
	asked                 time.Time // for its report
	wanted                uint64    // when it asked for ours, by its time
	answered              time.Time
	parts                 assembly
}

// assembly is a report of an incarnation that is not whole yet.
type assembly struct {
	sequence uint64
	parts    [][]byte
	missing  int
}

// New returns an exchange, which does nothing until it runs.
func New(c Config) *Exchange {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	began := c.Now()
	if c.Incarnation == 0 {
		c.Incarnation = uint64(began.UnixNano())
	}
	return &Exchange{config: c, began: began, incarnation: c.Incarnation, senders: map[string]*sender{}}
}

// Run takes datagrams and sends signs of life, until ctx ends, whose error it returns.
func (e *Exchange) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(ctx, func() { e.config.Conn.Close() })()
	running.Go(func() { e.beat(ctx) })
	buffer := make([]byte, MaxDatagram+1)
	for {
		n, from, err := e.config.Conn.ReadFrom(buffer)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // such as an ICMP error of a node that is down
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		e.Counts.Received.Add(1)
		e.take(buffer[:n], from)
	}
}

// Send makes a report this node's newest, and sends it to all who get every report, and to others. It is not kept: the caller must not change
// it. An empty report is none.
func (e *Exchange) Send(report []byte, others ...string) {
	if len(report) > MaxReport {
		e.config.Log.Error("a report is too large to be sent directly", "octets", len(report), "limit", MaxReport)
		return
	}
	e.mu.Lock()
	if !bytes.Equal(e.report, report) {
		e.report, e.number = report, e.number+1
	}
	number := e.number
	e.mu.Unlock()
	if len(report) == 0 {
		return
	}
	e.spread(e.parts(report, number), append(e.config.All(), others...))
}

// parts are the datagrams of a report.
func (e *Exchange) parts(report []byte, number uint64) [][]byte {
	d := e.datagram(part, number)
	size := maxPayload
	if d.began != d.incarnation {
		size -= shiftBytes
	}
	count := (len(report) + size - 1) / size
	all := make([][]byte, count)
	for i := range all {
		d.index, d.count, d.payload = uint8(i), uint8(count), report[i*size:min((i+1)*size, len(report))]
		all[i] = d.append(make([]byte, 0, MaxDatagram), e.config.Key)
	}
	return all
}

// datagram returns one that is made now, about a report.
func (e *Exchange) datagram(of what, number uint64) datagram {
	return datagram{
		what: of, incarnation: e.incarnation, began: uint64(e.began.UnixNano()), sequence: number, sent: uint64(max(e.config.Now().Sub(e.began), 0)),
		name: e.config.Name,
	}
}

// spread sends datagrams to nodes, each once.
func (e *Exchange) spread(datagrams [][]byte, names []string) {
	done := map[string]bool{e.config.Name: true}
	for _, name := range names {
		if addr := e.config.Peer(name).Addr; addr.IsValid() && !done[name] {
			for _, d := range datagrams {
				e.send(d, addr)
			}
		}
		done[name] = true
	}
}

func (e *Exchange) send(d []byte, to netip.AddrPort) {
	_, _ = e.config.Conn.WriteTo(d, net.UDPAddrFromAddrPort(to)) // what is lost is asked for
	e.Counts.Sent.Add(1)
}

// beat sends signs of life until ctx ends.
func (e *Exchange) beat(ctx context.Context) {
	tick := time.NewTicker(Beat)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		report, number := e.report, e.number
		e.mu.Unlock()
		if len(report) == 0 {
			continue
		}
		d := e.datagram(beat, number)
		datagrams := [][]byte{d.append(nil, e.config.Key)}
		if i%int(resend/Beat) == 0 {
			datagrams = e.parts(report, number)
		}
		e.spread(datagrams, e.config.All())
	}
}

// Alive reports whether a node has given a sign of life lately.
func (e *Exchange) Alive(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.senders[name]
	return s != nil && e.config.Now().Sub(s.alive) < Patience
}

// Forget drops what is known of the nodes for which keep is false.
func (e *Exchange) Forget(keep func(name string) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.senders {
		if !keep(name) {
			delete(e.senders, name)
		}
	}
}
