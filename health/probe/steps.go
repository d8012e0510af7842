package probe

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
)

// step is a part of a probe. They come in this order, and some may be left out.
type step int

const (
	connecting  step = iota // TCP, with the look-up of a name
	handshaking             // TLS, or QUIC as a whole
	answering               // from the request to the answer
	ended
)

// steps are what a probe has done and what it is at. They are safe for concurrent use.
type steps struct {
	mu    sync.Mutex
	took  [ended]time.Duration
	at    step
	since time.Time
}

func begin(at step) *steps { return &steps{at: at, since: time.Now()} }

// to ends the step that the probe is at, and begins a later one. There is no way back.
func (s *steps) to(next step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next <= s.at {
		return
	}
	now := time.Now()
	s.took[s.at] += now.Sub(s.since)
	s.at, s.since = next, now
}

// all returns the times until now, that of the step that the probe is at with them.
func (s *steps) all() health.Steps {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := s.took
	if s.at < ended {
		took[s.at] += time.Since(s.since)
	}
	return health.Steps{Connect: took[connecting], Handshake: took[handshaking], Answer: took[answering]}
}

// traced has a request over TCP tell its steps.
func (s *steps) traced(ctx context.Context, withTLS bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil && withTLS {
				s.to(handshaking)
			}
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				s.to(answering)
			}
		},
		GotConn:              func(httptrace.GotConnInfo) { s.to(answering) },
		GotFirstResponseByte: func() { s.to(ended) },
	})
}
