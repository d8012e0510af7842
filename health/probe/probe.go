// Package probe observes PoPs and clusters from here: a PoP by a whole intake over a fresh HTTP/3 connection, a cluster by its health check. When
// that is done, and what comes of it, is decided elsewhere (package health/vantage).
package probe

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
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

// Config says how targets are probed.
type Config struct {
	Roots    *x509.CertPool // that PoPs' certificates are issued by; nil trusts those of the system
	ProbeKey string         // API key for probes
}

// Prober probes. It is safe for concurrent use.
type Prober struct {
	Config
	clusters *http.Transport
}

// New returns a prober.
func New(c Config) *Prober {
	return &Prober{Config: c, clusters: &http.Transport{DisableKeepAlives: true}} // a fresh connection, as clients make
}

// Close ends what is left of probes.
func (p *Prober) Close() { p.clusters.CloseIdleConnections() }

// Probe looks at a target once, until ctx ends at the latest.
func (p *Prober) Probe(ctx context.Context, t Target) health.Observation {
	began := time.Now()
	var (
		reason string
		err    error
	)
	if t.Kind == health.Cluster {
		reason, err = p.probeCluster(ctx, t)
	} else {
		reason, err = p.probePoP(ctx, t)
	}
	o := health.Observation{Target: t.Target, OK: err == nil, Reason: reason, Took: time.Since(began), At: time.Now()}
	if err != nil {
		o.Code, o.Reason = classify(ctx, err)
	}
	return o
}

// classify tells what kind of failure an error is, and how to put it.
func classify(ctx context.Context, err error) (health.Code, string) {
	var (
		status *statusError
		netErr net.Error
	)
	switch {
	case errors.As(err, &status):
		return health.Answered, err.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return health.Refused, err.Error()
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return health.Unreachable, err.Error()
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return health.Timeout, "no answer in time"
	case strings.Contains(err.Error(), "x509:"), strings.Contains(err.Error(), "certificate"):
		return health.Certificate, err.Error()
	case strings.Contains(err.Error(), "tls:"), strings.Contains(err.Error(), "CRYPTO_ERROR"):
		return health.Handshake, err.Error()
	}
	return health.Reset, err.Error()
}

// statusError is an answer that is none of a healthy one.
type statusError struct{ what string }

func (e *statusError) Error() string { return e.what }

// probePoP posts a probe to each address of a PoP: the whole pipeline to its 202, neither counted nor forwarded.
func (p *Prober) probePoP(ctx context.Context, t Target) (string, error) {
	if len(t.Addrs) == 0 {
		return "", errors.New("it has no address")
	}
	client := intakeclient.New(intakeclient.Config{Roots: p.Roots, HandshakeTimeout: 2 * time.Second})
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
			return "", &statusError{fmt.Sprintf("%v answered %d: %.200s", addr, answer.Status, strings.TrimSpace(string(answer.Body)))}
		}
	}
	return "accepted a probe", nil
}

// probeCluster asks a cluster's endpoints until one is well.
func (p *Prober) probeCluster(ctx context.Context, t Target) (string, error) {
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
		failures = append(failures, &statusError{fmt.Sprintf("%s/healthz answered %d", endpoint, response.StatusCode)})
	}
	return "", errors.Join(failures...)
}
