// Package probe observes PoPs and clusters from here: a PoP by a whole intake over a fresh HTTP/3 connection, a cluster by
// its health check. What it sees is made a verdict elsewhere (health.Tracker).
package probe

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/intakeclient"
)

// Target is what is probed and how it is reached.
type Target struct {
	health.Target
	Addrs     []netip.AddrPort // of a PoP; all must answer
	Service   string           // of a PoP: the host name that is asked for
	Path      string           // of a PoP's intake
	Body      []byte           // of a PoP: a payload that the service accepts
	Endpoints []string         // of a cluster: base URLs; one must answer
}

// Config says what is probed.
type Config struct {
	Targets  func() []Target          // current; called once an interval
	Report   func(health.Observation) // called concurrently
	Roots    *x509.CertPool           // that PoPs' certificates are issued by; nil trusts those of the system
	ProbeKey string                   // API key for probes
	Interval time.Duration            // between the probes of a target; default 500 ms, of which a tenth is random
	Timeout  time.Duration            // of a probe; default 1 s
}

// Run probes each target once an interval until ctx ends. A target has one probe at a time.
func Run(ctx context.Context, c Config) error {
	c.Interval = cmp.Or(c.Interval, 500*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	p := &prober{Config: c, clusters: &http.Transport{
		DialContext: (&net.Dialer{Timeout: c.Timeout}).DialContext, DisableKeepAlives: true, // a fresh connection, as clients make
	}}
	defer p.clusters.CloseIdleConnections()
	var running sync.WaitGroup
	defer running.Wait()
	stops := map[health.Target]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	known := map[health.Target]Target{}
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for {
		current := map[health.Target]Target{}
		for _, t := range c.Targets() {
			current[t.Target] = t
		}
		for name, stop := range stops {
			if t, ok := current[name]; !ok || !t.equal(known[name]) {
				stop()
				delete(stops, name)
			}
		}
		for name, t := range current {
			if stops[name] == nil {
				probing, stop := context.WithCancel(ctx)
				stops[name] = stop
				running.Go(func() { p.watch(probing, t) })
			}
		}
		known = current
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t Target) equal(other Target) bool {
	return slices.Equal(t.Addrs, other.Addrs) && t.Service == other.Service && t.Path == other.Path &&
		slices.Equal(t.Endpoints, other.Endpoints) && string(t.Body) == string(other.Body)
}

type prober struct {
	Config
	clusters *http.Transport
}

// watch probes a target until ctx ends.
func (p *prober) watch(ctx context.Context, t Target) {
	for {
		start := time.Now()
		reason, err := p.probe(ctx, t)
		if ctx.Err() != nil {
			return
		}
		o := health.Observation{Target: t.Target, OK: err == nil, Reason: reason, Took: time.Since(start), At: time.Now()}
		if err != nil {
			o.Reason = err.Error()
		}
		p.Report(o)
		wait := p.Interval*19/20 + rand.N(p.Interval/10) - time.Since(start)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// probe observes a target once; it returns the evidence that the target is well, or an error.
func (p *prober) probe(ctx context.Context, t Target) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var (
		reason string
		err    error
	)
	if t.Kind == health.Cluster {
		reason, err = p.probeCluster(ctx, t)
	} else {
		reason, err = p.probePoP(ctx, t)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", p.Timeout)
	}
	return reason, err
}

// probePoP posts a probe to each address of a PoP: the whole pipeline to its 202, neither counted nor forwarded.
func (p *prober) probePoP(ctx context.Context, t Target) (string, error) {
	if len(t.Addrs) == 0 {
		return "", errors.New("it has no address")
	}
	client := intakeclient.New(intakeclient.Config{Roots: p.Roots, HandshakeTimeout: p.Timeout})
	defer client.Close()
	header := http.Header{"X-Api-Key": {p.ProbeKey}, "X-Isochrone-Probe": {"1"}, "Content-Type": {"application/json"}}
	for _, addr := range t.Addrs {
		answer, err := client.Post(ctx, []intakeclient.Endpoint{{Target: t.Name, Addr: addr}}, &intakeclient.Request{
			Service: t.Service, Path: t.Path, Header: header, Body: t.Body,
		})
		if err != nil {
			return "", err
		}
		if answer.Status != http.StatusAccepted {
			return "", fmt.Errorf("%v answered %d: %.200s", addr, answer.Status, strings.TrimSpace(string(answer.Body)))
		}
	}
	return "accepted a probe", nil
}

// probeCluster asks a cluster's endpoints until one is well.
func (p *prober) probeCluster(ctx context.Context, t Target) (string, error) {
	failures := []error{}
	for _, endpoint := range t.Endpoints {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/healthz", nil)
		if err != nil {
			return "", err
		}
		response, err := p.clusters.RoundTrip(request)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4096))
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return "healthz answered 200", nil
		}
		failures = append(failures, fmt.Errorf("%s/healthz answered %d", endpoint, response.StatusCode))
	}
	return "", errors.Join(failures...)
}
