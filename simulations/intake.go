package simulations

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/cluster"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/simulations/packet"
	"github.com/isochrone/isochrone/simulations/virtual"
	"github.com/isochrone/isochrone/topology"
)

// What a network of links is made of.
type (
	Site = packet.Site
	Link = packet.Link
	RTTs = packet.RTTs
)

// Path is the way of a payload: from a client to a PoP, and on to a cluster.
type Path struct{ Client, PoP, Cluster Site }

// Transport is what a client posts over.
type Transport string

// The transports: HTTP/3, and HTTP/2 over TLS 1.3.
const (
	QUIC Transport = "QUIC"
	TCP  Transport = "TCP"
)

// Times are what a client and a PoP see of one post.
type Times struct {
	To202        time.Duration // from the client's first packet to its 202, with ack: spool
	Acknowledged time.Duration // from the client's first packet until the PoP knows that a cluster has the payload
	Loop         time.Duration // from the client's first packet to its 202, with ack: cluster
}

// MeasureIntake posts along a path and measures, on a connection that has to be opened and then on the same one. The PoP's
// own connection to the cluster is open, as one that works always is.
func MeasureIntake(rtts RTTs, path Path, over Transport) (fresh, warm Times, err error) {
	return measureIntake(rtts, path, over, nil)
}

func measureIntake(rtts RTTs, path Path, over Transport, wrap wrap) (fresh, warm Times, err error) {
	dir, err := os.MkdirTemp(packet.Scratch(), "isochrone-simulation-")
	if err != nil {
		return fresh, warm, err
	}
	defer os.RemoveAll(dir)
	err = virtual.Run(func() error {
		w, err := newIntakeWorld(packet.Config{Way: rtts.Way}, path, dir)
		if err != nil {
			return err
		}
		fresh, warm, err = w.measure(over, wrap)
		return errors.Join(err, w.close())
	})
	return fresh, warm, err
}

// MeasureMany has so many clients post along a path, over a network with chance, each on a connection that has to be opened and then on the same one.
// It returns how long each waited for its 202.
func MeasureMany(network packet.Config, path Path, over Transport, clients int) (fresh, warm []time.Duration, err error) {
	dir, err := os.MkdirTemp(packet.Scratch(), "isochrone-simulation-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	err = virtual.Run(func() error {
		w, err := newIntakeWorld(network, path, dir)
		if err != nil {
			return err
		}
		fresh, warm, err = w.measureMany(over, clients)
		return errors.Join(err, w.close())
	})
	return fresh, warm, err
}

// wrap stands between a client and its connections; nil for nothing.
type wrap = func(http.RoundTripper) http.RoundTripper

// The services of an intake world, by what their 202 promises.
const (
	spoolService   = "spool.isochrone.test"
	clusterService = "cluster.isochrone.test"
)

// intakeDocument is the topology of an intake world; the PoP's and the cluster's address are filled in.
const intakeDocument = `schema: 1
zones:
  isochrone.test: {schema: 1, nameservers: {ns1.isochrone.test: [10.0.0.53]}, hostmaster: hostmaster.isochrone.test}
services:
  spool.isochrone.test: {schema: 1, intake: {ack: spool}}
  cluster.isochrone.test: {schema: 1, intake: {ack: cluster}}
  early.isochrone.test: {schema: 1, intake: {ack: spool, idempotency_key: required}}
pops:
  pop: {schema: 1, location: {lat: 0, lon: 0, country: SG}, addresses: [%v], port: 443}
clusters:
  cluster: {schema: 1, location: {lat: 0, lon: 0, country: SG}, endpoints: ["http://%v:80"]}
`

// intakeWorld is one PoP with one cluster, and clients that come and go.
type intakeWorld struct {
	network *packet.Network
	path    Path
	pop     netip.AddrPort
	ca      *devca.CA
	key     string
	cluster *cluster.Cluster
	log     lockedBuffer
	posted  atomic.Uint64
	acks    chan acknowledgement
	stop    []func() error // the latest first
}

type acknowledgement struct {
	id string
	at time.Time
}

// newIntakeWorld starts a world. Its files are in dir.
func newIntakeWorld(network packet.Config, path Path, dir string) (*intakeWorld, error) {
	w := &intakeWorld{network: packet.New(network), path: path, acks: make(chan acknowledgement, 16)}
	popHost, clusterHost := w.network.Host(path.PoP), w.network.Host(path.Cluster)
	w.pop = netip.AddrPortFrom(popHost, 443)
	t, err := topology.Parse(fmt.Appendf(nil, intakeDocument, popHost, clusterHost))
	if err != nil {
		return nil, err
	}
	id, key, record, err := topology.NewKey(rand.Reader, time.Now())
	if err != nil {
		return nil, err
	}
	w.key = key
	snap := &topology.Snapshot{Revision: 1, Good: 1, Topology: t, Keys: topology.NewKeySet(map[string]*topology.Key{id: record})}
	if w.ca, err = devca.New(time.Now()); err != nil {
		return nil, err
	}
	if err := w.startCluster(clusterHost, filepath.Join(dir, "cluster")); err != nil {
		return nil, err
	}
	if err := w.startPoP(snap, filepath.Join(dir, "spool")); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// clusterToken is the bearer token of the world's cluster.
const clusterToken = "token"

func (w *intakeWorld) startCluster(host netip.Addr, dir string) (err error) {
	if w.cluster, err = cluster.Open(dir, clusterToken); err != nil {
		return err
	}
	server := &http.Server{Handler: w.cluster}
	listener := w.network.Listen(netip.AddrPortFrom(host, 80))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	w.stop = append(w.stop, func() error {
		server.Close()
		<-done
		return w.cluster.Close()
	})
	return nil
}

func (w *intakeWorld) startPoP(snap *topology.Snapshot, dir string) error {
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	queue, err := spool.Open(dir, spool.Options{Log: log})
	if err != nil {
		return err
	}
	ledger := quota.New(quota.Config{PoP: "pop", Store: quota.NewMemory(1)}) // asking it takes no time, and is done before any post that is measured
	pop := dataplane.New(dataplane.Config{
		Name: "pop", Spool: queue, Log: log, Model: rtt.Default(), Secret: func(string) []byte { return []byte("secret") },
		Snapshot:     func() *topology.Snapshot { return snap },
		Verdicts:     func() health.Verdicts { return nil },
		Quota:        ledger,
		ClusterToken: func(string) string { return clusterToken },
		Dial:         w.network.Dialer(w.pop.Addr()),
		Acknowledged: func(e *spool.Envelope, _ string) { w.acks <- acknowledgement{e.ID, time.Now()} },
	})
	udp, err := w.network.ListenPacket(w.pop)
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	sockets := dataplane.Listeners{UDP: udp, TCP: w.network.Listen(w.pop), TLS: &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return w.ca.Certificate(hello.ServerName, time.Now())
		},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() { done <- pop.Run(ctx, sockets) }()
	counting, stop := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		_ = ledger.Run(counting) // ends with its context
	}()
	w.stop = append(w.stop, func() error {
		cancel()
		err := <-done
		stop()
		<-ended
		return err
	})
	return nil
}

// measure posts by a first client, so that the PoP is connected to the cluster, and then by those that are measured.
func (w *intakeWorld) measure(over Transport, wrap wrap) (fresh, warm Times, err error) {
	first, second, third := w.client(over, wrap), w.client(over, wrap), w.client(over, wrap)
	defer first.Close()
	defer second.Close()
	defer third.Close()
	if _, _, err := w.post(first, spoolService); err != nil {
		return fresh, warm, err
	}
	for _, times := range []*Times{&fresh, &warm} {
		if times.To202, times.Acknowledged, err = w.post(second, spoolService); err != nil {
			return fresh, warm, err
		}
		if times.Loop, _, err = w.post(third, clusterService); err != nil {
			return fresh, warm, err
		}
	}
	return fresh, warm, nil
}

// apart is the time from the first post of one client to that of the next, if there are many.
const apart = 20 * time.Millisecond

// measureMany has clients post, one after the other has begun.
func (w *intakeWorld) measureMany(over Transport, clients int) (fresh, warm []time.Duration, err error) {
	fresh, warm = make([]time.Duration, clients), make([]time.Duration, clients)
	acked := make(chan struct{})
	go func() { // each post is acknowledged once
		defer close(acked)
		for range 2 * clients {
			<-w.acks
		}
	}()
	var posting errgroup.Group
	for i := range clients {
		posting.Go(func() error {
			<-time.After(time.Duration(i) * apart)
			c := w.client(over, packet.Pace)
			defer c.Close()
			for _, took := range []*time.Duration{&fresh[i], &warm[i]} {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				start := time.Now()
				_, err := w.send(ctx, c, spoolService)
				cancel()
				if err != nil {
					return err
				}
				*took = time.Since(start)
			}
			return nil
		})
	}
	if err := posting.Wait(); err != nil {
		return nil, nil, err
	}
	<-acked
	return fresh, warm, nil
}

// client returns a client on a host of its own.
func (w *intakeWorld) client(over Transport, wrap wrap) *intakeclient.Client {
	host := w.network.Host(w.path.Client)
	return intakeclient.New(intakeclient.Config{
		Roots: w.ca.Pool(), TCP: over == TCP, Dial: w.network.Dialer(host), Wrap: wrap,
		Listen: func() (net.PacketConn, error) { return w.network.ListenPacket(netip.AddrPortFrom(host, 0)) },
	})
}

// post posts a payload, waits until the cluster has it, and returns when that was known to the client and to the PoP.
func (w *intakeWorld) post(c *intakeclient.Client, service string) (to202, acknowledged time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	id, err := w.send(ctx, c, service)
	if err != nil {
		return 0, 0, err
	}
	to202 = time.Since(start)
	select {
	case ack := <-w.acks:
		if ack.id != id {
			return 0, 0, fmt.Errorf("post to %s: request %s was acknowledged instead of %s", service, ack.id, id)
		}
		return to202, ack.at.Sub(start), nil
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("post to %s: not acknowledged: %w", service, ctx.Err())
	}
}

// send posts a payload that no other is equal to, and returns the id of the request when its 202 has come.
func (w *intakeWorld) send(ctx context.Context, c *intakeclient.Client, service string) (id string, err error) {
	number := w.posted.Add(1)
	answer, err := c.Post(ctx, []intakeclient.Endpoint{{Target: "pop." + service, Addr: w.pop}}, &intakeclient.Request{
		Service: service, Path: dataplane.Path,
		Header: http.Header{"X-Api-Key": {w.key}, "Content-Type": {"application/json"}},
		Body:   fmt.Appendf(nil, `{"hash":"0x%064x","sender":"0x%040x","amount":"1"}`, number, number),
	})
	if err != nil {
		return "", fmt.Errorf("post to %s: %w", service, err)
	}
	if answer.Status != http.StatusAccepted {
		return "", fmt.Errorf("post to %s: answered %d: %s", service, answer.Status, answer.Body)
	}
	var accepted dataplane.Accepted
	if err := json.Unmarshal(answer.Body, &accepted); err != nil {
		return "", fmt.Errorf("post to %s: %w", service, err)
	}
	return accepted.ID, nil
}

// close ends the world, and reports what it complained about or lost.
func (w *intakeWorld) close() error {
	var failures []error
	for i := len(w.stop) - 1; i >= 0; i-- {
		failures = append(failures, w.stop[i]())
	}
	w.network.Wait()
	if said := w.log.String(); said != "" {
		failures = append(failures, fmt.Errorf("the PoP complained: %s", said))
	}
	if got := w.cluster.Stats(); got.Stored != w.posted.Load() || got.Conflicts+got.Duplicates+got.Refused > 0 {
		failures = append(failures, fmt.Errorf("%d payloads were posted, the cluster has %+v", w.posted.Load(), got))
	}
	return errors.Join(failures...)
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

// String returns what was written.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
