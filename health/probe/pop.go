package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/topology"
)

// probePoP looks at one address of a PoP.
func (p *Prober) probePoP(ctx context.Context, t Target, at netip.AddrPort) found {
	switch t.How.Probe {
	case topology.ProbeTCP:
		return p.probeTCP(ctx, at)
	case topology.ProbeHTTPS:
		return p.probeHTTPS(ctx, t, at)
	}
	return p.probeIntake(ctx, t, at, t.How.Probe == topology.ProbeHTTP2)
}

// probeIntake posts a probe: the whole pipeline to its 202, neither counted nor forwarded.
func (p *Prober) probeIntake(ctx context.Context, t Target, at netip.AddrPort, overTCP bool) found {
	client := intakeclient.New(intakeclient.Config{
		Roots: p.config.Roots, HandshakeTimeout: patience, TCP: overTCP, Dial: p.config.Dial, Listen: p.config.Listen, Wrap: p.config.Wrap,
	})
	defer client.Close()
	first := handshaking
	if overTCP {
		first = connecting
	}
	steps, to := begin(first), []intakeclient.Endpoint{{Target: t.Target.Name, Addr: at}}
	if _, err := client.Connect(steps.traced(ctx, true), to, t.Service); err != nil {
		return found{steps: steps.all(), err: err}
	}
	steps.to(answering)
	keys := p.config.Keys()
	if len(keys) == 0 {
		keys = []string{""}
	}
	for i, key := range keys {
		answer, err := client.Post(ctx, to, &intakeclient.Request{
			Service: t.Service, Path: t.Path, Body: t.Body,
			Header: http.Header{"X-Api-Key": {key}, "X-Isochrone-Probe": {"1"}, "Content-Type": {"application/json"}},
		})
		switch {
		case err != nil:
			return found{steps: steps.all(), err: err}
		case answer.Status == http.StatusUnauthorized && i < len(keys)-1: // it does not know the newest key yet
			continue
		case answer.Status != http.StatusAccepted:
			err := &statusError{fmt.Sprintf("answered %d: %.200s", answer.Status, strings.TrimSpace(string(answer.Body)))}
			return found{steps: steps.all(), err: err}
		}
		steps.to(ended)
		return p.expiry(t, answer.TLS, found{reason: "accepted a probe", steps: steps.all()})
	}
	panic("unreachable")
}

// probeHTTPS asks for a path.
func (p *Prober) probeHTTPS(ctx context.Context, t Target, at netip.AddrPort) found {
	transport := &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: p.config.Roots, ServerName: t.Service, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return p.dial(ctx, network, at)
		},
	}
	defer transport.CloseIdleConnections()
	steps := begin(connecting)
	response, err := get(steps.traced(ctx, true), transport, "https://"+t.Service+t.How.Path)
	if err != nil {
		return found{steps: steps.all(), err: err}
	}
	if response.StatusCode != t.How.Status {
		return found{steps: steps.all(), err: &statusError{fmt.Sprintf("%s answered %d: want %d", t.How.Path, response.StatusCode, t.How.Status)}}
	}
	return p.expiry(t, response.TLS, found{reason: fmt.Sprintf("%s answered %d", t.How.Path, response.StatusCode), steps: steps.all()})
}

// get asks for a URL, and reads a little of the answer.
func get(ctx context.Context, by http.RoundTripper, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := by.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4096))
	return response, response.Body.Close()
}

// probeTCP connects.
func (p *Prober) probeTCP(ctx context.Context, at netip.AddrPort) found {
	steps := begin(connecting)
	conn, err := p.dial(ctx, "tcp", at)
	if err != nil {
		return found{steps: steps.all(), err: err}
	}
	conn.Close()
	steps.to(ended)
	return found{reason: "takes connections", steps: steps.all()}
}

// tellAgain is after what time it is told again that a certificate ends soon.
const tellAgain = 6 * time.Hour

// expiry adds when a PoP's certificate ends, if that is soon, and has it told. One that has ended fails in the handshake.
func (p *Prober) expiry(t Target, state *tls.ConnectionState, f found) found {
	if state == nil || len(state.PeerCertificates) == 0 || t.How.CertificateDays == 0 {
		return f
	}
	ends := state.PeerCertificates[0].NotAfter
	left := time.Until(ends)
	if left > time.Duration(t.How.CertificateDays)*24*time.Hour {
		return f
	}
	p.mu.Lock()
	told := p.told[t.Target.Name]
	if time.Since(told) > tellAgain {
		p.told[t.Target.Name] = time.Now()
	}
	p.mu.Unlock()
	if time.Since(told) > tellAgain {
		p.config.Log.Warn("a PoP's certificate ends soon", "pop", t.Target.Name, "service", t.Service, "ends", ends)
	}
	f.warning = health.Expiring
	f.reason += fmt.Sprintf("; its certificate ends in %v", left.Truncate(time.Minute))
	return f
}
