package dns

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/isochrone/isochrone/dns/dnssec"
)

// Config is what a server needs for good.
type Config struct {
	Log *slog.Logger
	Now func() time.Time // nil stands for time.Now

	// NoSegmentation has each answer over UDP sent by itself. Else runs of answers to one client port are handed to Linux in one piece
	// (UDP_SEGMENT), which is cheaper for clients such as load balancers, and makes no difference to those that use many ports.
	NoSegmentation bool
}

// Settings are what a server can be told anew while it runs. The zero value answers without DNSSEC, limits and names.
type Settings struct {
	Keys      *dnssec.Keyring                 // private keys; nil for none
	ReadKeys  func() (*dnssec.Keyring, error) // reads them again, when the public ones have changed or some are missing; may be nil
	Cookies   [][16]byte                      // secrets of DNS cookies (RFC 9018), the first makes new ones; none stands for one of this process
	RateLimit RateLimit
	NSID      string         // RFC 5001, and hostname.bind; empty for none
	Version   string         // version.bind; empty for none
	ExplainTo []netip.Prefix // who may ask for explain.<service>
	TSIG      []TSIGKey      // RFC 8945
	Transfer  []netip.Prefix // who may transfer zones without a TSIG key
	Notify    []NotifyTarget // who is told of a new serial (RFC 1996)
}

// RateLimit bounds how many answers a client prefix (/24, or /56 in IPv6) gets over UDP without a valid cookie.
type RateLimit struct {
	PerSecond int            // answers; 0 stands for no limit
	Slip      int            // every so-maniest answer over the limit is sent truncated, the others are not sent; 0 sends none
	Exempt    []netip.Prefix // clients without a limit
}

// TSIGKey is a key that zone transfers are authenticated with.
type TSIGKey struct {
	Name      string // fully qualified, lower case
	Algorithm string // as package dns names it, such as hmac-sha256.
	Secret    []byte
}

// NotifyTarget is a secondary server.
type NotifyTarget struct {
	Addr netip.AddrPort
	Key  string // name of a TSIG key, or empty
}

// Sockets are what a server listens on. It closes them in the end.
type Sockets struct {
	UDP   []*net.UDPConn                                       // each is served by a thread of its own
	TCP   []net.Listener                                       //
	TLS   []net.Listener                                       // of TCP, for DNS over TLS (RFC 7858)
	HTTPS []net.Listener                                       // of TCP, for DNS over HTTP/2 and 1.1 (RFC 8484)
	QUIC  []net.PacketConn                                     // for DNS over HTTP/3
	Cert  func(*tls.ClientHelloInfo) (*tls.Certificate, error) // for TLS, HTTPS and QUIC
}

// Transport is how a question came.
type Transport uint8

// The transports.
const (
	UDP Transport = iota
	TCP
	TLS
	HTTPS
	transports
)

// String returns the transport as metrics name it.
func (t Transport) String() string { return [...]string{"udp", "tcp", "tls", "https"}[t] }
