package dataplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

// Path is where payloads are posted.
const Path = "/api/v1/ingest"

// Limits of one request.
const (
	bodyTimeout       = 10 * time.Second // to receive the body
	ackTimeout        = 10 * time.Second // for a cluster's acknowledgement, where the service's 202 waits for one
	maxIdempotencyKey = 255              // octets
)

// Accepted is the body of a 202.
type Accepted struct {
	Status string `json:"status"` // "accepted"
	ID     string `json:"id"`
	SHA256 string `json:"sha256"` // of the body that was received: lower-case hex, 64 characters
}

// refusal is why a request is not accepted.
type refusal struct {
	status     int
	detail     string
	retryAfter time.Duration // 0 for none
}

// refusals are the statuses that a refusal can have.
var refusals = map[int]bool{
	http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusForbidden: true, http.StatusNotFound: true, http.StatusMethodNotAllowed: true,
	http.StatusRequestEntityTooLarge: true, http.StatusUnsupportedMediaType: true, http.StatusMisdirectedRequest: true,
	http.StatusUnprocessableEntity: true, http.StatusTooManyRequests: true, http.StatusInternalServerError: true,
	http.StatusServiceUnavailable: true,
}

func statusText(status int) string { return strconv.Itoa(status) }

func refuse(status int, format string, arguments ...any) *refusal {
	return &refusal{status: status, detail: fmt.Sprintf(format, arguments...)}
}

// ServeHTTP answers one request.
func (p *PoP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if panicked := recover(); panicked != nil {
			p.counts.panics.Add(1)
			p.config.Log.Error("panic in the intake", "panic", panicked, "stack", string(debug.Stack()))
			p.refuse(w, refuse(http.StatusInternalServerError, ""))
		}
	}()
	w.Header().Set("X-Isochrone-Pop", p.config.Name)
	a, refused := p.admit(r)
	if refused == nil {
		refused = p.receive(w, r, a)
		defer func() { p.bodies.Release(a.held) }()
	}
	if refused == nil {
		refused = p.accept(w, r, a)
	}
	if refused != nil {
		p.refuse(w, refused)
	}
}

func (p *PoP) refuse(w http.ResponseWriter, why *refusal) {
	p.counts.refused[why.status].Add(1)
	switch {
	case why.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case why.status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "ApiKey")
	case why.retryAfter > 0:
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(why.retryAfter.Seconds()))))
	}
	problem.Write(w, why.status, why.detail)
}

// admission is a request that may send its body.
type admission struct {
	service        string
	policy         *topology.Intake
	keyID          string
	probe          bool
	idempotencyKey string
	held           int64 // octets taken of the PoP's memory for bodies
	body           []byte
	sha256         [sha256.Size]byte
}

// admit checks what can be checked before the body, in the order that docs/intake.md tells.
func (p *PoP) admit(r *http.Request) (*admission, *refusal) {
	if r.URL.Path != Path {
		return nil, refuse(http.StatusNotFound, "payloads are posted to %s", Path)
	}
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "payloads are posted")
	}
	snap := p.config.Snapshot()
	if snap == nil {
		return nil, refuse(http.StatusServiceUnavailable, "this PoP has not read its topology yet")
	}
	if pop := snap.Topology.PoPs[p.config.Name]; pop == nil || pop.State == topology.Disabled {
		return nil, refuse(http.StatusServiceUnavailable, "this PoP is not in service")
	}
	name, service := p.service(snap.Topology, r.Host)
	if service == nil {
		return nil, refuse(http.StatusMisdirectedRequest, "host %.100q is not a service of this PoP", r.Host)
	}
	a := &admission{service: name, policy: &service.Intake, idempotencyKey: r.Header.Get("Idempotency-Key")}
	if r.ContentLength > a.policy.MaxBodyBytes {
		return nil, tooLarge(a.policy)
	}
	key, refused := p.authenticate(snap, r, a)
	if refused != nil {
		return nil, refused
	}
	if refused := p.take(r.Context(), a, key); refused != nil {
		return nil, refused
	}
	if !acceptsType(r.Header.Get("Content-Type")) {
		return nil, refuse(http.StatusUnsupportedMediaType, "the payload's Content-Type is application/json")
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refuse(http.StatusUnsupportedMediaType, "payloads have no Content-Encoding: the very bytes are forwarded")
	}
	return a, nil
}

func tooLarge(policy *topology.Intake) *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "a payload has at most %d octets", policy.MaxBodyBytes)
}

// service returns the service that a request's host names, if this PoP offers it. Who names the PoP itself means the service
// below which its name stands; who names an address means the PoP's only service.
func (p *PoP) service(t *topology.Topology, host string) (string, *topology.Service) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if own, ok := strings.CutPrefix(host, p.config.Name+"."); ok {
		host = own
	}
	if p.offers(t.Services[host]) {
		return host, t.Services[host]
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
		return "", nil
	}
	only, found := "", (*topology.Service)(nil)
	for name, service := range t.Services {
		if p.offers(service) && found != nil {
			return "", nil
		} else if p.offers(service) {
			only, found = name, service
		}
	}
	return only, found
}

func (p *PoP) offers(s *topology.Service) bool {
	return s != nil && (s.PoPs == nil || slices.Contains(s.PoPs, p.config.Name))
}

// authenticate finds the key of a request. A key for probes is good for probes alone, and a probe needs one.
func (p *PoP) authenticate(snap *topology.Snapshot, r *http.Request, a *admission) (*topology.Key, *refusal) {
	text := r.Header.Get("X-API-Key")
	if text == "" {
		return nil, refuse(http.StatusUnauthorized, "the request has no X-API-Key")
	}
	id, _ := topology.KeyID(text)
	key, now := snap.Keys.Lookup(id), time.Now()
	if key == nil || !key.Matches(text, now) {
		return nil, refuse(http.StatusUnauthorized, "the X-API-Key is not known")
	}
	if key.Expired(now) {
		return nil, refuse(http.StatusUnauthorized, "the X-API-Key has expired")
	}
	a.keyID, a.probe = id, r.Header.Get("X-Isochrone-Probe") != ""
	if a.probe != key.Probe {
		return nil, refuse(http.StatusUnauthorized, "probes need a key for probes, which is good for nothing else")
	}
	if !key.IsFor(a.service) {
		return nil, refuse(http.StatusForbidden, "the X-API-Key is not for this service")
	}
	if client, _ := netip.ParseAddrPort(r.RemoteAddr); !key.IsFrom(client.Addr()) { // in no prefix either, if it is none
		return nil, refuse(http.StatusForbidden, "the X-API-Key may not be used from this address")
	}
	return key, nil
}

// take admits a request against its key's quota.
func (p *PoP) take(ctx context.Context, a *admission, key *topology.Key) *refusal {
	if a.probe {
		return nil
	}
	decision, err := p.config.Quota.Admit(ctx, a.keyID, key.QuotaPerMinute, time.Now())
	if err != nil {
		p.config.Log.Debug("quota", "error", err)
		return &refusal{http.StatusServiceUnavailable, "the quota cannot be checked now", time.Second}
	}
	if !decision.Admitted {
		return &refusal{
			http.StatusTooManyRequests, fmt.Sprintf("the key's quota of %d requests a minute is used up", key.QuotaPerMinute),
			decision.RetryAfter,
		}
	}
	return nil
}

// receive reads the body once, hashes it while it comes, and checks it.
func (p *PoP) receive(w http.ResponseWriter, r *http.Request, a *admission) *refusal {
	limit := a.policy.MaxBodyBytes
	expected := r.ContentLength
	if expected < 0 {
		expected = limit
	}
	if !p.bodies.TryAcquire(expected) {
		return &refusal{http.StatusServiceUnavailable, "this PoP receives too much at the moment", time.Second}
	}
	a.held = expected
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // unsupported by a recorder in a test
	hash := sha256.New()
	body, err := readAll(io.TeeReader(io.LimitReader(r.Body, limit+1), hash), r.ContentLength)
	switch {
	case int64(len(body)) > limit:
		return tooLarge(a.policy)
	case err != nil:
		return refuse(http.StatusBadRequest, "the body did not arrive whole")
	}
	a.body = body
	hash.Sum(a.sha256[:0])
	if err := checkPayload(body, a.policy.RequiredFields); err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	if len(a.idempotencyKey) > maxIdempotencyKey {
		return refuse(http.StatusBadRequest, "an Idempotency-Key has at most %d octets", maxIdempotencyKey)
	}
	return nil
}

// readAll reads to the end, at once if the length is known.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	return body[:n], err
}

// accept makes a payload safe and answers 202.
func (p *PoP) accept(w http.ResponseWriter, r *http.Request, a *admission) *refusal {
	envelope := &spool.Envelope{
		ID: requestID(p.config.Name, p.config.Secret(a.service), a.keyID, a.idempotencyKey), SHA256: a.sha256, KeyID: a.keyID,
		Service: a.service, ContentType: r.Header.Get("Content-Type"), Received: time.Now(), Body: a.body,
	}
	var refused *refusal
	if a.probe {
		refused = p.unsafe(p.config.Spool.Check())
	} else {
		refused = p.spool(r.Context(), envelope, a.policy.Ack)
	}
	if refused != nil {
		return refused
	}
	if a.probe {
		p.counts.probes.Add(1)
	} else {
		p.counts.accepted.Add(1)
	}
	if next := p.forward.Next(a.service); next != "" {
		w.Header().Set("X-Isochrone-Cluster", next)
	}
	body, err := json.Marshal(Accepted{"accepted", envelope.ID, hex.EncodeToString(a.sha256[:])})
	if err != nil {
		panic(err) // strings can be written
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(append(body, '\n')) // an error means that the client has gone; the envelope is safe
	return nil
}

// spool puts an envelope on disk and waits for a cluster where the service wants that.
func (p *PoP) spool(ctx context.Context, e *spool.Envelope, ack topology.Ack) *refusal {
	if ack != topology.AckCluster {
		return p.unsafe(p.config.Spool.Append(e, nil))
	}
	settled := make(chan spool.Settlement, 1)
	if err := p.config.Spool.Append(e, func(s spool.Settlement) { settled <- s }); err != nil {
		return p.unsafe(err)
	}
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	select {
	case s := <-settled:
		if !s.Acknowledged {
			return refuse(http.StatusUnprocessableEntity, "request %s was refused: %s", e.ID, s.Reason)
		}
		return nil
	case <-timeout.C:
	case <-ctx.Done():
	case <-p.stopping:
	}
	return &refusal{
		http.StatusServiceUnavailable,
		fmt.Sprintf("no cluster has acknowledged request %s in time; it stays queued and will be delivered", e.ID),
		time.Second,
	}
}

// unsafe makes a refusal of the spool's error.
func (p *PoP) unsafe(err error) *refusal {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, spool.ErrFull):
		return &refusal{http.StatusServiceUnavailable, "this PoP's queue is full", 5 * time.Second}
	}
	return &refusal{http.StatusServiceUnavailable, "this PoP cannot store payloads safely now", 5 * time.Second}
}
