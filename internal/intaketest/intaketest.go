// Package intaketest has real servers on loopback for the tests of clients of an intake: an HTTP/3 and HTTP/2 server of one port, and a DNS
// server. It checks nothing itself.
package intaketest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// CA returns a new certificate authority.
func CA(t testing.TB) *devca.CA {
	t.Helper()
	ca, err := devca.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// Server is one that Serve has started.
type Server struct {
	At    netip.AddrPort // of both TCP and UDP
	Close func()         // ends it at once; it may be called again
}

// Serve serves a handler over HTTP/3 and HTTP/2 (and 1.1), with a certificate for a name, until the test ends. 0-RTT is taken.
func Serve(t testing.TB, ca *devca.CA, name string, handler http.Handler) *Server {
	t.Helper()
	certificate, err := ca.Certificate(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := sockettest.Both(t)
	config := &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS13}
	h3 := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(config), QUICConfig: &quic.Config{Allow0RTT: true}}
	h2 := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	var running sync.WaitGroup
	running.Go(func() { _ = h3.Serve(udp) }) // until it is closed
	running.Go(func() { _ = h2.ServeTLS(tcp, "", "") })
	s := &Server{At: tcp.Addr().(*net.TCPAddr).AddrPort(), Close: sync.OnceFunc(func() {
		h3.Close()
		h2.Close()
		udp.Close()
		running.Wait()
	})}
	t.Cleanup(s.Close)
	return s
}

// Zone is a DNS server that answers from records.
type Zone struct {
	At        string       // host:port
	Questions atomic.Int64 // that came
	records   atomic.Pointer[[]dns.RR]
}

// DNS serves records, in zone file format, over UDP and TCP until the test ends.
func DNS(t testing.TB, records ...string) *Zone {
	t.Helper()
	tcp, udp := sockettest.Both(t)
	z := &Zone{At: tcp.Addr().String()}
	z.Change(t, records...)
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		done, ready := make(chan error, 1), make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		go func() { done <- server.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			if err := server.ShutdownContext(context.Background()); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return z
}

// Change replaces the records.
func (z *Zone) Change(t testing.TB, records ...string) {
	t.Helper()
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	z.records.Store(&all)
}

// ServeDNS implements dns.Handler: NODATA for what is not there.
func (z *Zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.Questions.Add(1)
	answer := new(dns.Msg).SetReply(q)
	for _, rr := range *z.records.Load() {
		if rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
			answer.Answer = append(answer.Answer, rr)
		}
	}
	_ = w.WriteMsg(answer) // else the client asks again
}

// Record is the HTTPS record by which a service is at a server.
func Record(service string, priority int, s *Server) string {
	return fmt.Sprintf("%s. 60 IN HTTPS %d pop%d.%s. alpn=h3,h2 port=%d ipv4hint=%v", service, priority, priority, service, s.At.Port(), s.At.Addr())
}
