//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/dataplane"
)

var flips = flag.Int("flips", 30, "how often TestRouteFlips moves the route")

// flipClients are connections on which requests are posted all the time.
type flipClients struct {
	*constant
	dials atomic.Int64 // connections that were opened: as many as clients, when none breaks
	roots *x509.CertPool
	net   *flipNet
	idle  time.Duration // after which a connection is lost
	stop  func()
}

const flipConnections = 20

// clients have requests posted on connections to the VIP until stop.
func (f *flipNet) clients(idle time.Duration) *flipClients {
	f.t.Helper()
	roots, err := readRoots(filepath.Join(f.dir, "ca.pem"))
	if err != nil {
		f.t.Fatal(err)
	}
	c := &flipClients{roots: roots, net: f, idle: idle, constant: &constant{
		url: "https://intake.isochrone.test:8443" + dataplane.Path, hashes: map[string]string{},
		key: strings.TrimSpace(f.isochrone("key", "create", "--quota", "10000000")),
	}}
	eventually(f.t, "the key to be known to all", func() error {
		for _, pop := range flipPoPs[:len(f.pops)] {
			f.flip(pop)
			transport, end := c.transport()
			_, _, err := c.post(transport, []byte(`{"hash":"","sender":"","amount":0}`))
			end()
			if err != nil {
				return fmt.Errorf("%s: %w", pop, err)
			}
		}
		return nil
	})
	c.dials.Store(0)
	ctx, cancel := context.WithCancel(f.t.Context())
	var posting sync.WaitGroup
	c.stop = sync.OnceFunc(func() {
		cancel()
		posting.Wait()
	})
	f.t.Cleanup(c.stop)
	for i := range flipConnections {
		if each := flipConnections / len(f.pops); i%each == 0 && i/each < len(f.pops) {
			f.flip(flipPoPs[i/each])
		}
		transport, end := c.transport()
		f.t.Cleanup(end)
		c.postOne(transport, i, 0)
		posting.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				c.postOne(transport, i, n)
				rest(ctx, 30*time.Millisecond)
			}
		})
	}
	return c
}

// transport returns one connection of a client, which is opened anew when it is lost.
func (c *flipClients) transport() (*http3.Transport, func()) {
	socket := &quic.Transport{Conn: c.net.socket()}
	vip := &net.UDPAddr{IP: net.ParseIP(flipVIP), Port: 8443}
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.roots, ServerName: "intake.isochrone.test"},
		QUICConfig:      &quic.Config{MaxIdleTimeout: c.idle, HandshakeIdleTimeout: c.idle},
		Dial: func(ctx context.Context, _ string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
			c.dials.Add(1)
			return socket.DialEarly(ctx, vip, tlsConfig, config)
		},
	}
	return transport, func() {
		transport.Close()
		socket.Close()
	}
}

// postOne posts one request, and counts what becomes of it.
func (c *flipClients) postOne(transport *http3.Transport, client, n int) {
	began := time.Now()
	id, hash, err := c.post(transport, fmt.Appendf(nil, `{"hash":"%d-%d","sender":"0x01","amount":1}`, client, n))
	took := int64(time.Since(began))
	c.mu.Lock()
	switch {
	case errors.Is(err, errTooBusy) || sentAgain(err):
		c.again.Add(1)
	case err != nil:
		c.failures = append(c.failures, fmt.Errorf("%d-%d: %w", client, n, err))
	default:
		c.hashes[id] = hash
		c.accepted.Add(1)
	}
	c.mu.Unlock()
	for longest := c.longest.Load(); took > longest && !c.longest.CompareAndSwap(longest, took); {
		longest = c.longest.Load()
	}
}

// whole fails the test if a request is broken.
func (c *flipClients) whole(what string) {
	c.net.t.Helper()
	failures := c.failed()
	for _, failure := range failures[:min(5, len(failures))] {
		c.net.t.Errorf("%s: %v", what, failure)
	}
	if len(failures) > 0 {
		c.net.t.Errorf("%s: %d requests broken of %d", what, len(failures), c.accepted.Load())
	}
}

// load waits until as many requests have been accepted as there are connections, and more.
func (c *flipClients) load(n int64) {
	c.net.t.Helper()
	n += c.accepted.Load()
	eventually(c.net.t, "load", func() error { return atLeast(c.constant, n) })
}

// TestRouteFlips has the route to a VIP lead now to one PoP, now to another, by BIRD, under load: no request and no connection breaks, nor when a
// PoP is replaced meanwhile, or drained. Then the PoP with the route is killed, and a client is served again by BGP alone. Without a shared
// secret, requests break.
func TestRouteFlips(t *testing.T) {
	t.Parallel()
	f := newFlipNet(t)
	for _, pop := range flipPoPs {
		f.start(pop)
	}
	c := f.clients(time.Minute)
	began := time.Now()
	for n := range *flips {
		f.flip(flipPoPs[n%len(flipPoPs)])
		c.load(flipConnections / 2)
	}
	t.Logf("%d flips in %v: %d accepted, %d broken, %d sent again, the longest took %v", *flips, time.Since(began).Round(time.Millisecond),
		c.accepted.Load(), len(c.failed()), c.again.Load(), time.Duration(c.longest.Load()))
	c.whole("flips")
	if n := c.dials.Load(); n != flipConnections {
		t.Errorf("%d connections were opened by %d clients: some were lost", n, flipConnections)
	}
	for _, pop := range flipPoPs {
		passed, taken := f.passed(pop, "passed"), f.passed(pop, "taken")
		t.Logf("%s has passed %d packets, and taken %d; refused %d, homeless %d, lost %d", pop, passed, taken,
			f.passed(pop, "refused"), f.passed(pop, "homeless"), f.passed(pop, "lost"))
		if passed == 0 {
			t.Error("no packet was passed: the test shows nothing")
		}
	}
	f.flip("fra1") // the connections of iad1 too
	f.upgrade("iad1")
	c.load(3 * flipConnections)
	f.flip("iad1")
	c.load(3 * flipConnections)
	c.whole("an upgrade of a PoP that packets are passed to")
	f.isochrone("drain", "iad1", "--for", "1h", "--reason", "trying", "--yes")
	eventually(t, "the drain to move the route", func() error {
		if at := f.route(); at == "iad1" || at == "" {
			return fmt.Errorf("it leads to %q", at)
		}
		return nil
	})
	c.load(3 * flipConnections)
	c.whole("drain")
	c.stop()
	c.killed()
}

// upgrade replaces the process of a PoP.
func (f *flipNet) upgrade(pop string) {
	f.t.Helper()
	if err := unix.Kill(f.pids[pop], unix.SIGUSR2); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "a successor", func() error {
		found := regexp.MustCompile(`successor serves.* process=(\d+)`).FindStringSubmatch(f.pops[pop].output.String())
		if found == nil {
			return errors.New("none serves yet")
		}
		var err error
		f.pids[pop], err = strconv.Atoi(found[1])
		return err
	})
	eventually(f.t, "the route of the successor", func() error {
		if all := f.bird("show route protocol " + pop); !strings.Contains(all, "198.51.100.0/24") {
			return errors.New(all)
		}
		return nil
	})
}

// killed kills the PoP that has the route, and wants a client to be served again soon.
func (c *flipClients) killed() {
	t, f := c.net.t, c.net
	t.Helper()
	pop := f.route()
	if err := unix.Kill(f.pids[pop], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the next 202", func() error {
		c.idle = time.Second
		transport, end := c.transport()
		defer end()
		_, _, err := c.post(transport, []byte(`{"hash":"","sender":"","amount":0}`))
		return err
	})
	took := time.Since(began)
	t.Logf("kill -9 of %s: the next 202 after %v, of %s", pop, took, f.route())
	if took > 10*time.Second { // 3 s, on a machine that has the time
		t.Errorf("the next 202 came after %v", took)
	}
}

// TestRouteFlipsBreak is the baseline: PoPs without a shared secret pass nothing on, and requests break.
func TestRouteFlipsBreak(t *testing.T) {
	t.Parallel()
	f := newFlipNet(t)
	if err := os.Remove(filepath.Join(f.dir, peersSecretFile)); err != nil {
		t.Fatal(err)
	}
	for _, pop := range flipPoPs[:2] {
		f.start(pop)
	}
	c := f.clients(time.Second)
	c.load(flipConnections)
	began, n := time.Now(), 0
	for ; n < 2; n++ {
		want := len(c.failed()) + flipConnections/2
		f.flip(flipPoPs[n%2])
		eventually(t, "requests to break", func() error {
			if broken := len(c.failed()); broken < want {
				return fmt.Errorf("%d of %d are broken after flip %d", broken, want, n+1)
			}
			return nil
		})
	}
	t.Logf("%d flips in %v: %d accepted, %d broken, %d connections for %d clients", n, time.Since(began).Round(time.Millisecond),
		c.accepted.Load(), len(c.failed()), c.dials.Load(), flipConnections)
}
