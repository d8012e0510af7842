package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// maxQuestion is how many octets of a question are read over UDP; a longer one is cut and so malformed.
const maxQuestion = 4096

// Server answers DNS questions. It is safe for concurrent use.
type Server struct {
	config Config
	view   atomic.Pointer[router.View]
	index  atomic.Pointer[indexOf]

	connections connections
	http3       addresses // where HTTP/3 is served

	counts struct {
		udp, tcp, ignored, panics atomic.Uint64
		rcodes                    [24]atomic.Uint64 // the last counts all others
	}
}

// indexOf is the index of one topology.
type indexOf struct {
	table *router.Table
	*index
}

// New returns a server.
func New(c Config) *Server { return &Server{config: c} }

// Publish takes a new view. It returns when questions are answered from it.
func (s *Server) Publish(view *router.View) { s.view.Store(view) }

// Configure takes new settings.
func (s *Server) Configure(Settings) {}

// exchange answers a packet that came from an address. Send is called once for each message of the answer, in order: not at all
// for what deserves none, more than once for a zone transfer. The message is valid only during the call; an error that send
// returns ends the exchange and is returned.
func (s *Server) exchange(packet []byte, from netip.AddrPort, over Transport, send func([]byte) error) error {
	if answer := s.Answer(packet, from.Addr(), over == UDP); answer != nil {
		return send(answer)
	}
	return nil
}

// Answer returns the packet that answers a packet from an address, or nil when it deserves none. Over UDP it is truncated
// to what the asker can receive. It never panics.
func (s *Server) Answer(packet []byte, from netip.Addr, udp bool) (answer []byte) {
	defer func() {
		if p := recover(); p != nil {
			s.counts.panics.Add(1)
			s.config.Log.Error("panic while answering a question", "panic", p, "stack", string(debug.Stack()))
			answer = nil
		}
	}()
	if udp {
		s.counts.udp.Add(1)
	} else {
		s.counts.tcp.Add(1)
	}
	view := s.view.Load()
	r := responder{view: view}
	if view != nil {
		r.index = s.indexFor(view.Table)
	}
	a := r.respond(packet, from.Unmap())
	if a == nil {
		s.counts.ignored.Add(1)
		return nil
	}
	s.counts.rcodes[min(a.Rcode, len(s.counts.rcodes)-1)].Add(1)
	packed, err := a.pack(udp)
	if err != nil {
		s.config.Log.Error("an answer cannot be packed", "name", a.query.name, "error", err)
		return nil
	}
	return packed
}

// indexFor returns the index of a table, which is made when its first question comes.
func (s *Server) indexFor(t *router.Table) *index {
	if known := s.index.Load(); known != nil && known.table.Snapshot().Topology == t.Snapshot().Topology {
		return known.index
	}
	made := &indexOf{t, newIndex(t)}
	s.index.Store(made) // another goroutine may make it too; they are alike
	return made.index
}

// Stats returns totals since the start: questions by transport, answers by code, and what went wrong.
func (s *Server) Stats() map[string]uint64 {
	stats := map[string]uint64{
		"udp": s.counts.udp.Load(), "tcp": s.counts.tcp.Load(),
		"ignored": s.counts.ignored.Load(), "panics": s.counts.panics.Load(),
	}
	for code := range s.counts.rcodes {
		if n := s.counts.rcodes[code].Load(); n > 0 {
			stats["rcode_"+dns.RcodeToString[code]] = n
		}
	}
	return stats
}

// Run serves the sockets until ctx ends, and closes them. Questions in flight are answered.
func (s *Server) Run(ctx context.Context, sockets Sockets) error {
	udp := sockets.UDP[0]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	failed := make(chan error, 1)
	run := func(work func() error) {
		running.Go(func() {
			if err := work(); err != nil && ctx.Err() == nil {
				select {
				case failed <- err:
				default:
				}
				cancel()
			}
		})
	}
	for range runtime.GOMAXPROCS(0) {
		run(func() error { return s.serveUDP(ctx, udp) })
	}
	for _, work := range s.streamWorks(ctx, sockets) {
		run(work)
	}
	<-ctx.Done()
	udp.SetReadDeadline(time.Unix(1, 0))
	running.Wait()
	udp.Close()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

func (s *Server) serveUDP(ctx context.Context, conn net.PacketConn) error {
	buffer := make([]byte, maxQuestion)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // a receive error of one datagram, such as an ICMP message that came back
		}
		if answer := s.Answer(buffer[:n], addrOf(from), true); answer != nil {
			conn.WriteTo(answer, from) // what cannot be sent is lost, as any datagram may be
		}
	}
}

// addrOf returns the IP address of a peer.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}
