package intakeclient

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Times of a Sender.
const (
	hedgeAfter    = 250 * time.Millisecond // without an answer, after which the next endpoint is tried beside (as RFC 8305 section 5 does for connections)
	lastHedge     = time.Second            // at most, if three round trips are longer
	avoidFor      = 10 * time.Second       // an endpoint that was overtaken, or has failed
	askAgain      = 5 * time.Second        // that DNS is left alone after it was asked, while stale answers are used
	resolveWithin = 10 * time.Second
	staleFor      = 24 * time.Hour // that what was resolved is used while DNS is away (RFC 8767)
	firstBackoff  = 100 * time.Millisecond
	lastBackoff   = 10 * time.Second
	maxHonoured   = time.Minute // of a Retry-After
)

// Sender posts to one service in such a way that a PoP which is dead, slow or busy does not matter: the second choice of DNS is tried after
// a moment, and all again until an answer is final. Requests must be repeatable: each has an Idempotency-Key. It may be used concurrently.
type Sender struct {
	config   SenderConfig
	h3, h2   *Client
	mu       sync.Mutex
	known    []Endpoint
	resolved time.Time
	fresh    time.Duration         // for how long that is good
	avoid    map[attempt]time.Time // until when
	lookup   *lookup               // under way
	asked    time.Time             // when the last one began

	ending  context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

// SenderConfig is what a Sender needs.
type SenderConfig struct {
	Service string                                                                       // host name
	Path    string                                                                       // default /api/v1/ingest
	Resolve func(ctx context.Context, service string) ([]Endpoint, time.Duration, error) // such as Resolver.Lookup
	Config  Config                                                                       // of the connections
	OnlyTCP bool                                                                         // no HTTP/3
}

// attempt is one way to reach the service.
type attempt struct {
	Endpoint
	tcp bool
}

// NewSender returns a Sender without connections.
func NewSender(c SenderConfig) *Sender {
	c.Path = cmp.Or(c.Path, "/api/v1/ingest")
	tcp := c.Config
	tcp.TCP = true
	s := &Sender{config: c, h3: New(c.Config), h2: New(tcp), avoid: map[attempt]time.Time{}}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// Close closes all connections.
func (s *Sender) Close() error {
	s.end()
	err := errors.Join(s.h3.Close(), s.h2.Close())
	s.running.Wait()
	return err
}

// NewIdempotencyKey returns 128 random bits in base32.
func NewIdempotencyKey() string {
	var bits [16]byte
	rand.Read(bits[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bits[:]))
}

// Final reports whether an answer is worth no other attempt.
func Final(status int) bool {
	switch status {
	case http.StatusTooEarly, http.StatusMisdirectedRequest, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	}
	return status < 500
}

// Send posts until there is a final answer (see Final), or ctx ends; then it returns the last answer that was not final, if there is one,
// beside the error. A header without an Idempotency-Key gets one.
func (s *Sender) Send(ctx context.Context, header http.Header, body []byte) (*Answer, error) {
	request := s.request(header, body)
	var last *Answer
	for round := 0; ; round++ {
		answer, err := s.round(ctx, request)
		if err == nil && Final(answer.Status) {
			return answer, nil
		}
		if answer != nil {
			last = answer
		}
		if err := pause(ctx, round, answer); err != nil {
			return last, err
		}
	}
}

// SendOnce tries each PoP once at most, and returns the first final answer, or else the last one. Who sends again waits for Backoff, and
// gives the same Idempotency-Key.
func (s *Sender) SendOnce(ctx context.Context, header http.Header, body []byte) (*Answer, error) {
	return s.round(ctx, s.request(header, body))
}

// request makes one that has an Idempotency-Key.
func (s *Sender) request(header http.Header, body []byte) *Request {
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if header.Get("Idempotency-Key") == "" {
		header.Set("Idempotency-Key", NewIdempotencyKey())
	}
	return &Request{Service: s.config.Service, Path: s.config.Path, Header: header, Body: body}
}

// Backoff is how long to wait after so many attempts that have failed, from 0 on: a random time (full jitter) that grows to ten seconds,
// beside what the last answer, which may be nil, says in Retry-After, a minute at most.
func Backoff(failed int, answer *Answer) time.Duration {
	longest := min(lastBackoff, firstBackoff<<min(failed, 10))
	return time.Duration(mathrand.Int64N(int64(longest)+1)) + answer.retryAfter()
}

// retryAfter is what the answer says, a minute at most; 0 for nothing.
func (a *Answer) retryAfter() time.Duration {
	if a == nil {
		return 0
	}
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(min(seconds, 1<<20))*time.Second, maxHonoured)
}

// pause waits before another round.
func pause(ctx context.Context, round int, answer *Answer) error {
	timer := time.NewTimer(Backoff(round, answer))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no PoP has given a final answer: %w", ctx.Err())
	}
}

// result is what came of an attempt.
type result struct {
	attempt
	answer *Answer
	err    error
}

// round tries all ways once, the next one when one has failed or is late, and returns the first final answer, or else the last one.
func (s *Sender) round(ctx context.Context, r *Request) (*Answer, error) {
	ways, err := s.ways(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of those that were overtaken
	results := make(chan result, len(ways))
	var late []attempt
	var answered []netip.AddrPort // which need not be asked again over another transport
	var last *Answer
	var failures []error
	hedge := time.NewTimer(0)
	defer hedge.Stop()
	for next, open := 0, 0; next < len(ways) || open > 0; {
		fire := hedge.C
		if next == len(ways) {
			fire = nil
		}
		select {
		case <-fire:
			way := ways[next]
			if next++; slices.Contains(answered, way.Addr) {
				hedge.Reset(0)
				continue
			}
			open++
			late = append(late, way)
			go func() { results <- s.try(ctx, way, r) }()
			hedge.Reset(max(hedgeAfter, min(lastHedge, 3*s.h3.roundTrip(target{way.Addr, s.config.Service}))))
			continue
		case got := <-results:
			open--
			late = remove(late, got.attempt)
			if got.err == nil && Final(got.answer.Status) {
				s.found(got.attempt, late)
				return got.answer, nil
			}
			if got.err == nil && got.answer.Status == http.StatusTooManyRequests {
				return got.answer, nil // the quota is the key's, in all PoPs
			}
			if got.err == nil {
				answered = append(answered, got.Addr)
			}
			if got.err != nil || aboutPoP(got.answer.Status) {
				s.shun(got.attempt)
			}
			if got.err != nil {
				failures = append(failures, got.err)
			} else {
				last = got.answer
			}
			hedge.Reset(0)
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, errors.Join(failures...)
}

// aboutPoP reports whether an answer that is not final says that the PoP is not well, rather than something about one request.
func aboutPoP(status int) bool {
	return status == http.StatusMisdirectedRequest || status > http.StatusInternalServerError
}

func remove(from []attempt, what attempt) []attempt {
	kept := from[:0]
	for _, a := range from {
		if a != what {
			kept = append(kept, a)
		}
	}
	return kept
}

func (s *Sender) try(ctx context.Context, way attempt, r *Request) result {
	client := s.h3
	if way.tcp {
		client = s.h2
	}
	answer, _, err := client.post(ctx, way.Endpoint, r)
	if err != nil {
		err = fmt.Errorf("%s (%v): %w", way.Target, way.Addr, err)
	}
	return result{way, answer, err}
}

// ways returns how the service can be reached, best first: endpoints as DNS has them, over HTTP/3, and after the second of these over TCP too,
// in case UDP does not get through. What was late or has failed lately comes last.
func (s *Sender) ways(ctx context.Context) ([]attempt, error) {
	endpoints, err := s.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	var udp, tcp []attempt
	for _, e := range endpoints {
		if e.speaks(HTTP3) {
			udp = append(udp, attempt{e, false})
		}
		if e.speaks(HTTP2) {
			tcp = append(tcp, attempt{e, true})
		}
	}
	all := tcp
	if !s.config.OnlyTCP {
		n := min(2, len(udp))
		all = append(append(append(make([]attempt, 0, 2*len(udp)), udp[:n]...), tcp...), udp[n:]...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("resolve %s: %w", s.config.Service, ErrProtocol)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var good, bad []attempt
	for _, way := range all {
		if now.Before(s.avoid[way]) {
			bad = append(bad, way)
		} else {
			delete(s.avoid, way)
			good = append(good, way)
		}
	}
	return append(good, bad...), nil
}

// lookup is a question to DNS that is under way.
type lookup struct {
	done chan struct{} // closed when the rest is set
	err  error
}

// endpoints returns what DNS says, or has said: then it is not waited for longer than for a PoP.
func (s *Sender) endpoints(ctx context.Context) ([]Endpoint, error) {
	s.mu.Lock()
	known, age := s.known, time.Since(s.resolved)
	if known != nil && age < s.fresh {
		s.mu.Unlock()
		return known, nil
	}
	under := s.lookup
	if under == nil && (known == nil || time.Since(s.asked) > askAgain) && s.ending.Err() == nil {
		under = &lookup{done: make(chan struct{})}
		s.lookup, s.asked = under, time.Now()
		s.running.Go(func() { s.resolve(under) })
	}
	s.mu.Unlock()
	if under == nil {
		if known != nil && age < staleFor {
			return known, nil
		}
		return nil, fmt.Errorf("resolve %s: %w", s.config.Service, ErrNoAddress)
	}
	var late <-chan time.Time
	if known != nil && age < staleFor {
		timer := time.NewTimer(hedgeAfter)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-under.done:
	case <-late:
		return known, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if under.err != nil && (s.known == nil || time.Since(s.resolved) > staleFor) {
		return nil, under.err
	}
	return s.known, nil
}

// resolve asks DNS, for all who wait.
func (s *Sender) resolve(l *lookup) {
	ctx, cancel := context.WithTimeout(s.ending, resolveWithin)
	defer cancel()
	found, ttl, err := s.config.Resolve(ctx, s.config.Service)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lookup, l.err = nil, err; err == nil {
		s.known, s.resolved, s.fresh = found, time.Now(), ttl
	}
	close(l.done)
}

// found notes that a way is good, and that others, which were tried before it, are late.
func (s *Sender) found(way attempt, late []attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.avoid, way)
	for _, other := range late {
		s.avoid[other] = time.Now().Add(avoidFor)
	}
}

func (s *Sender) shun(way attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avoid[way] = time.Now().Add(avoidFor)
	if len(s.avoid) > 1000 { // of a name whose addresses change all the time
		clear(s.avoid)
	}
}
