package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/handover"
	"github.com/isochrone/isochrone/internal/sockets"
)

// transportFlags are those of a PoP's transports.
type transportFlags struct {
	drainTimeout         time.Duration
	tls12                bool
	connectionsPerPrefix int
}

func (f *transportFlags) register(flags *pflag.FlagSet) {
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 10*time.Second, "how long requests and connections may take to end, when the process ends")
	flags.BoolVar(&f.tls12, "tls12", false, "take TLS 1.2 too, over TCP")
	flags.IntVar(&f.connectionsPerPrefix, "connections-per-prefix", 1000, "how many connections an IPv4 /24 or an IPv6 /56 may have open")
}

// popProcess is one process of a PoP, with what it shares with the one before it and the one after it.
type popProcess struct {
	name    string
	log     *slog.Logger
	flags   transportFlags
	pool    *sockets.Pool
	lock    *os.File
	before  net.Conn // to the predecessor; nil for none
	ids     *handover.IDs
	mesh    *handover.Mesh  // with the other PoPs
	secrets func() [][]byte // that PoPs share
	sockets []*handover.Socket
	front   *dataplane.Front
	pop     *dataplane.PoP
	monitor *layer // nil for none
	bgp     *announcer
}

// newPoPProcess returns a process that takes over what was passed to it. One without a pool takes and passes nothing.
func newPoPProcess(name string, pool *sockets.Pool, flags transportFlags, log *slog.Logger) (*popProcess, error) {
	p := &popProcess{name: name, log: log, flags: flags, pool: pool}
	if file := pool.File(controlName); file != nil {
		var err error
		if p.before, err = handover.Conn(file); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// open takes the PoP's folder, which the predecessor has until it ends.
func (p *popProcess) open(dir stateDir) (err error) {
	if p.lock = p.pool.File(lockName); p.lock == nil {
		p.lock, err = dir.lockFile("pops", p.name)
	}
	return err
}

// bind takes the sockets of some addresses, and of those VIPs that this machine has. Without its VIPs a PoP serves its own clients alone, and is not
// one to announce them.
func (p *popProcess) bind(addrs, vips []netip.AddrPort) ([]listeners, error) {
	var bound []listeners
	for _, at := range slices.Concat(addrs, vips) {
		tcp, udp, err := p.pool.Both(at, 1)
		if errors.Is(err, syscall.EADDRNOTAVAIL) && slices.Contains(vips, at) {
			p.log.Warn("a VIP is on no interface of this machine, and not served: add it to the loopback interface and start anew", "address", at.Addr())
			continue
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			err = listenError(at, "--listen", err)
		} else if err != nil {
			err = fmt.Errorf("--listen: %w", err)
		}
		if err != nil {
			for _, l := range bound {
				l.close()
			}
			return nil, err
		}
		bound = append(bound, listeners{udp[0], tcp})
	}
	return bound, nil
}

// serve has the transports serve on sockets, as soon as the predecessor does not any more. Requests wait until the PoP is there.
func (p *popProcess) serve(n *node, bound []listeners, secret string, on *layer) error {
	generation, err := p.awaitTurn()
	if err != nil {
		return err
	}
	p.secrets = n.peerSecrets(p.log)
	if shared := p.secrets(); len(shared) > 0 { // then every PoP knows whose a connection is
		secret = string(shared[0])
	}
	sum := sha256.Sum256([]byte("connection ids\x00" + secret))
	p.ids = handover.NewIDs(handover.ID{PoP: handover.PoPNumber(p.name), Generation: generation}, [16]byte(sum[:]))
	if p.mesh, err = handover.NewMesh(handover.MeshConfig{IDs: p.ids, Secrets: p.secrets, Address: n.passingAddress(p.name)}); err != nil {
		return err
	}
	p.front = dataplane.NewFront(dataplane.FrontConfig{
		Name: p.name, Log: p.log, TLS12: p.flags.tls12, DrainTimeout: p.flags.drainTimeout,
		Limits: dataplane.Limits{ConnectionsPerPrefix: p.flags.connectionsPerPrefix},
		Early:  func() bool { return dataplane.TakesEarly(n.Snapshot()) },
	})
	var served []dataplane.Listeners
	for _, l := range bound {
		socket := handover.NewSocket(l.udp, p.ids)
		if file := p.pool.File(packetsName + l.addr().String()); file != nil {
			before, err := handover.Conn(file)
			if err != nil {
				return err
			}
			socket.PassTo(before)
		}
		p.mesh.Join(socket)
		p.sockets = append(p.sockets, socket)
		served = append(served, dataplane.Listeners{
			UDP: socket, TCP: l.tcp, TLS: &tls.Config{GetCertificate: n.certs.Certificate}, TicketKeys: n.certs.TicketKeys, ConnectionIDs: p.ids,
		})
	}
	on.run("transports of PoP "+p.name, func(ctx context.Context) error {
		defer p.mesh.Close()
		return p.front.Serve(ctx, served...)
	})
	return p.awaitSpool()
}

// started is called when payloads are accepted.
func (p *popProcess) started(pop *dataplane.PoP) {
	p.pop = pop
	if unused := p.pool.Unused(); len(unused) > 0 {
		p.log.Warn("sockets were passed to this process that it does not listen on", "addresses", strings.Join(unused, ", "))
	}
	if p.before != nil {
		_, _ = p.before.Write([]byte(servingWord)) // an error means that it has ended
		p.before.Close()
	}
}
