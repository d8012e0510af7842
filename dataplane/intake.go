package dataplane

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
	"github.com/isochrone/isochrone/dataplane/payload"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/tracing"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

// Path is where payloads are posted.
const Path = "/api/v1/ingest"

// Limits of one request.
const (
	ackTimeout        = 10 * time.Second // for a cluster's acknowledgement, where the service's 202 waits for one
	maxIdempotencyKey = 255              // octets
)

// refusal is why a request is not accepted.
type refusal struct {
	status     int
	detail     string
	retryAfter time.Duration // 0 for none
	location   string        // where to go instead; empty for nowhere
}

// refusals are the statuses that a refusal can have.
var refusals = map[int]bool{
	http.StatusTemporaryRedirect: true, http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusForbidden: true,
	http.StatusNotFound: true, http.StatusMethodNotAllowed: true, http.StatusRequestEntityTooLarge: true,
	http.StatusUnsupportedMediaType: true, http.StatusMisdirectedRequest: true, http.StatusUnprocessableEntity: true,
	http.StatusTooEarly: true, http.StatusTooManyRequests: true, http.StatusInternalServerError: true, http.StatusServiceUnavailable: true,
}

func statusText(status int) string { return strconv.Itoa(status) }

func refuse(status int, format string, arguments ...any) *refusal {
	return &refusal{status: status, detail: fmt.Sprintf(format, arguments...)}
}

// intake is one request on its way through the PoP. It is used again for another one.
type intake struct {
	*exchange.Request
	answer *exchange.Answer
	allow  string // the methods of the path, when another one was used

	offer                             *offer
	keyID                             string
	key                               *topology.Key
	probe                             bool
	idempotencyKey                    string
	quota                             quota.Decision
	held                              int64 // octets taken of the PoP's memory for bodies
	timed                             timedBody
	body                              []byte
	hash                              hash.Hash
	sha256                            [sha256.Size]byte
	id                                string // once it is accepted
	cluster                           string // that is next
	span                              tracing.Span
	began, admitted, received, stored time.Time
}

// Answer implements exchange.Handler.
func (p *PoP) Answer(r *exchange.Request, a *exchange.Answer) {
	in := p.intakes.Get().(*intake)
	in.Request, in.answer, in.began = r, a, time.Now()
	in.span = p.config.Tracer.Start(r.Header.Get("Traceparent"), in.began)
	defer func() {
		p.front.overload.Drop(&r.Ticket)
		p.bodies.Release(in.held)
		*in = intake{hash: in.hash}
		p.intakes.Put(in)
	}()
	refused := p.contained(in)
	if refused != nil {
		p.refuse(in, refused)
	}
	p.record(in, refused)
}

// contained answers a request; a panic costs that one alone.
func (p *PoP) contained(in *intake) (refused *refusal) {
	defer func() {
		if panicked := recover(); panicked != nil {
			p.counts.panics.Add(1)
			p.config.Log.Error("panic in the intake", "panic", panicked, "stack", string(debug.Stack()))
			in.answer.Reset()
			refused = refuse(http.StatusInternalServerError, "")
		}
	}()
	in.answer.Add("x-isochrone-pop", p.config.Name)
	if in.Path != Path {
		if strings.HasPrefix(in.Path, ReceiptsPath) {
			return p.outcome(in)
		}
		return p.elsewhere(in)
	}
	if in.Method != http.MethodPost {
		in.allow = http.MethodPost
		p.tellNext(in)
		return refuse(http.StatusMethodNotAllowed, "payloads are posted")
	}
	// A probe must not find a busy PoP dead: its clients would all go to the next one, which is then as busy.
	if in.Header.Get("X-Isochrone-Probe") == "" {
		if why, ok := p.enter(in); !ok {
			return overloaded(in, why)
		}
	}
	if refused := p.admit(in); refused != nil {
		return refused
	}
	in.admitted = time.Now()
	if refused := p.receive(in); refused != nil {
		return refused
	}
	in.received = time.Now()
	p.front.overload.Received(&in.Ticket)
	return p.accept(in)
}

// tellNext tells who asks where they are which cluster is next for the service that they ask.
func (p *PoP) tellNext(in *intake) {
	snap := p.config.Snapshot()
	if snap == nil {
		return
	}
	if o := p.offers(snap).service(p.config.Name, in.Host); o != nil {
		if in.cluster = p.forward.Next(o.name); in.cluster != "" {
			in.answer.Add("x-isochrone-cluster", in.cluster)
		}
	}
}

// overloaded refuses a request because of the load, before it costs anything.
func overloaded(in *intake, why overload.Refusal) *refusal {
	in.answer.Turn = why.Turn
	return &refusal{status: http.StatusServiceUnavailable, detail: overloadDetail, retryAfter: why.RetryAfter}
}

// refuse answers with a problem document.
func (p *PoP) refuse(in *intake, why *refusal) {
	p.counts.refused[why.status].Add(1)
	a := in.answer
	switch {
	case why.status == http.StatusMethodNotAllowed:
		a.Add("allow", in.allow)
	case why.status == http.StatusUnauthorized:
		a.Add("www-authenticate", `Bearer realm="isochrone", ApiKey realm="isochrone"`)
	case why.location != "":
		a.Add("location", why.location)
	}
	if why.status == http.StatusTooManyRequests {
		rateLimit(a, in.quota)
	}
	if why.retryAfter > 0 {
		a.Add("retry-after", strconv.Itoa(int(math.Ceil(why.retryAfter.Seconds()))))
	}
	a.Add("content-type", problem.ContentType)
	a.Add("cache-control", "no-store")
	a.Status, a.Body = why.status, problem.Append(a.Body[:0], why.status, why.detail)
}

// record tells the access log and the trace of a request.
func (p *PoP) record(in *intake, refused *refusal) {
	if !in.span.Sampled() && p.config.Access == nil {
		return
	}
	now, service, detail := time.Now(), "", ""
	if in.offer != nil {
		service = in.offer.name
	}
	if refused != nil {
		detail = refused.detail
	}
	if in.span.Sampled() {
		in.span.Phase("admission", in.began, in.admitted)
		in.span.Phase("body", in.admitted, in.received)
		in.span.Phase("spool", in.received, in.stored)
		in.span.End(tracing.Request{
			PoP: p.config.Name, Service: service, Protocol: in.Proto, Status: in.answer.Status, ID: in.id, KeyID: in.keyID,
			Bytes: int64(len(in.body)), Detail: detail,
		})
	}
	if p.config.Access.Wants(in.answer.Status, now) {
		p.config.Access.Write(Access{
			Time: in.began, PoP: p.config.Name, Service: service, Remote: in.Remote, Protocol: in.Proto, Status: in.answer.Status,
			ID: in.id, KeyID: in.keyID, Probe: in.probe, Bytes: int64(len(in.body)), Queue: since(in.began, in.admitted),
			Body: since(in.admitted, in.received), Spool: since(in.received, in.stored), Total: now.Sub(in.began), Cluster: in.cluster,
			Detail: detail, Trace: in.span.TraceID(),
		})
	}
}

// since returns the time between two moments, and 0 if the later one was not reached.
func since(from, to time.Time) time.Duration { return max(0, to.Sub(from)) }

// admit checks what can be checked before the body, in the order that docs/intake.md tells.
func (p *PoP) admit(in *intake) *refusal {
	snap := p.config.Snapshot()
	if snap == nil {
		return refuse(http.StatusServiceUnavailable, "this PoP has not read its topology yet")
	}
	offers := p.offers(snap)
	if offers.pop == nil {
		return refuse(http.StatusServiceUnavailable, "this PoP is not in service")
	}
	if in.offer = offers.service(p.config.Name, in.Host); in.offer == nil {
		return refuse(http.StatusMisdirectedRequest, "host %.100q is not a service of this PoP", in.Host)
	}
	policy := in.offer.policy
	in.idempotencyKey = in.Header.Get("Idempotency-Key")
	if in.Early && (policy.IdempotencyKey != topology.IdempotencyRequired || in.idempotencyKey == "") {
		return refuse(http.StatusTooEarly, "send this after the handshake: what comes in early data may be a repetition")
	}
	if in.ContentLength > policy.MaxBodyBytes {
		return tooLarge(policy)
	}
	if refused := p.authenticate(snap, in); refused != nil {
		return refused
	}
	for _, name := range ambiguous {
		if in.Header.Repeated(name) {
			return refuse(http.StatusBadRequest, "the request has %s more than once", name)
		}
	}
	if refused := p.take(in); refused != nil {
		return refused
	}
	if err := in.offer.payload.Type(in.Header.Get("Content-Type")); err != nil {
		return refuse(http.StatusUnsupportedMediaType, "%v", err)
	}
	if encoding := in.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refuse(http.StatusUnsupportedMediaType, "payloads have no Content-Encoding: the very bytes are forwarded")
	}
	return nil
}

func tooLarge(policy *topology.Intake) *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "a payload has at most %d octets", policy.MaxBodyBytes)
}

// presentedKey returns the key of a request: X-API-Key, or a bearer token (RFC 6750 section 2.1), or both if they are the same. What could be
// read as two keys is refused, so that nobody in between and this PoP go by different ones.
func presentedKey(r *exchange.Request) (string, *refusal) {
	for _, name := range [...]string{"X-Api-Key", "Authorization"} {
		if r.Header.Repeated(name) {
			return "", refuse(http.StatusBadRequest, "the request has %s more than once", name)
		}
	}
	key := r.Header.Get("X-Api-Key")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return key, nil
	}
	switch token = strings.TrimSpace(token); {
	case token == "" || token == key:
		return key, nil
	case key == "":
		return token, nil
	}
	return "", refuse(http.StatusBadRequest, "the request has two API keys: X-API-Key and Authorization differ")
}

// ambiguous are fields that a request has once: what it means would depend on who reads it.
var ambiguous = [...]string{"Idempotency-Key", "Content-Type", "Content-Encoding"}

// authenticate finds the key of a request. A key for probes is good for probes alone, and a probe needs one.
func (p *PoP) authenticate(snap *topology.Snapshot, in *intake) *refusal {
	text, refused := presentedKey(in.Request)
	if refused != nil {
		return refused
	}
	if text == "" {
		return refuse(http.StatusUnauthorized, "the request has no API key, as X-API-Key or as Authorization: Bearer")
	}
	id, _ := topology.KeyID(text)
	key := snap.Keys.Lookup(id)
	if key == nil || !key.Matches(text, in.began) {
		return refuse(http.StatusUnauthorized, "the API key is not known")
	}
	if key.Expired(in.began) {
		return refuse(http.StatusUnauthorized, "the API key has expired")
	}
	in.keyID, in.key, in.probe = id, key, in.Header.Get("X-Isochrone-Probe") != ""
	if in.probe != key.Probe {
		return refuse(http.StatusUnauthorized, "probes need a key for probes, which is good for nothing else")
	}
	if !key.IsFor(in.offer.name) {
		return refuse(http.StatusForbidden, "the API key is not for this service")
	}
	if !key.IsFrom(in.Remote.Addr()) { // in no prefix either, if it is none
		return refuse(http.StatusForbidden, "the API key may not be used from this address")
	}
	return nil
}

// take admits a request against its key's quota.
func (p *PoP) take(in *intake) *refusal {
	if in.probe {
		return nil
	}
	decision, err := p.config.Quota.Admit(in.Context, in.keyID, in.key.QuotaPerMinute, in.began)
	if err != nil {
		p.config.Log.Debug("quota", "error", err)
		return &refusal{status: http.StatusServiceUnavailable, detail: "the quota cannot be checked now", retryAfter: time.Second}
	}
	in.quota = decision
	if !decision.Admitted {
		return &refusal{
			status: http.StatusTooManyRequests, detail: fmt.Sprintf("the key's quota of %d requests a minute is used up", in.key.QuotaPerMinute),
			retryAfter: decision.RetryAfter,
		}
	}
	return nil
}

// receive reads the body once, hashes it while it comes, and checks it.
func (p *PoP) receive(in *intake) *refusal {
	limit := in.offer.policy.MaxBodyBytes
	expected := in.ContentLength
	if expected < 0 {
		expected = limit
	}
	if !p.bodies.TryAcquire(expected) {
		return &refusal{status: http.StatusServiceUnavailable, detail: "this PoP receives too much at the moment", retryAfter: time.Second}
	}
	in.held = expected
	in.timed.begin(in.Request, in.admitted)
	switch err := in.readBody(limit); {
	case errors.Is(err, errTooLarge):
		return tooLarge(in.offer.policy)
	case errors.Is(err, errSlowBody):
		return refuse(http.StatusBadRequest, "%v", errSlowBody)
	case err != nil:
		return refuse(http.StatusBadRequest, "the body did not arrive whole")
	}
	if refused := p.check(in); refused != nil {
		return refused
	}
	switch n := len(in.idempotencyKey); {
	case n > maxIdempotencyKey:
		return refuse(http.StatusBadRequest, "an Idempotency-Key has at most %d octets", maxIdempotencyKey)
	case n == 0 && in.offer.policy.IdempotencyKey == topology.IdempotencyRequired && !in.probe:
		return refuse(http.StatusBadRequest, "this service needs an Idempotency-Key, by which repeated requests are known")
	}
	return nil
}

// check checks a body that is here. Probes have one that no policy can object to, and are checked for syntax alone.
func (p *PoP) check(in *intake) *refusal {
	if in.probe {
		if err := payload.Probe(in.body); err != nil {
			return refuse(http.StatusBadRequest, "%v", err)
		}
		return nil
	}
	if sig := in.offer.policy.Signature; sig != nil {
		var secret []byte
		if p.config.WebhookSecret != nil {
			secret = p.config.WebhookSecret(in.offer.name)
		}
		err := payload.Signed(sig, in.body, in.Header.Get(sig.Header), in.Header.Get(sig.Timestamp), secret, in.began)
		if errors.Is(err, payload.ErrNoSecret) {
			return &refusal{status: http.StatusServiceUnavailable, detail: "this PoP cannot check signatures now", retryAfter: 5 * time.Second}
		}
		if err != nil {
			return refuse(http.StatusBadRequest, "%v", err)
		}
	}
	if err := in.offer.payload.Check(in.body); err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	return nil
}

var errTooLarge = errors.New("the body is too large")

// firstRead is what is read at once of a body whose length is not known.
const firstRead = 4 << 10

// readBody reads to the end, and hashes what it reads.
func (in *intake) readBody(limit int64) error {
	size := in.ContentLength
	if size < 0 {
		size = min(limit, firstRead)
	}
	body := make([]byte, 0, size)
	in.hash.Reset()
	for {
		if len(body) == cap(body) { // what is told is here: there must be an end now, or it is not told
			var more [1]byte
			n, err := in.timed.Read(more[:])
			if n == 0 && err == nil {
				continue
			}
			if n == 0 || int64(len(body)) >= limit {
				in.body = body
				if n > 0 {
					return errTooLarge
				}
				return in.finish(err)
			}
			body = append(body, more[0])
			in.hash.Write(more[:])
			continue
		}
		n, err := in.timed.Read(body[len(body):cap(body)])
		in.hash.Write(body[len(body) : len(body)+n])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return errTooLarge
		}
		if err != nil {
			in.body = body
			return in.finish(err)
		}
	}
}

// finish ends the reading of a body.
func (in *intake) finish(err error) error {
	if err != io.EOF {
		return err
	}
	if in.ContentLength >= 0 && int64(len(in.body)) != in.ContentLength {
		return exchange.ErrLength
	}
	in.hash.Sum(in.sha256[:0])
	return nil
}

// elsewhere answers a request for another path: one that belongs to a cluster is told where to go.
func (p *PoP) elsewhere(in *intake) *refusal {
	snap := p.config.Snapshot()
	if snap == nil {
		return refuse(http.StatusNotFound, "payloads are posted to %s", Path)
	}
	if in.offer = p.offers(snap).service(p.config.Name, in.Host); in.offer == nil {
		return refuse(http.StatusNotFound, "payloads are posted to %s", Path)
	}
	to, ok := in.offer.payload.Place(in.Path)
	if !ok {
		return refuse(http.StatusNotFound, "payloads are posted to %s", Path)
	}
	for _, name := range p.forward.Order(in.offer.name) {
		if cluster := snap.Topology.Clusters[name]; cluster != nil && cluster.Public != "" {
			in.cluster = name
			location := strings.TrimSuffix(cluster.Public, "/") + to
			if in.Query != "" {
				location += "?" + in.Query
			}
			return &refusal{
				status: http.StatusTemporaryRedirect, location: location,
				detail: "PoPs take payloads alone; this is done by cluster " + name + ", which is nearest: go to " + location,
			}
		}
	}
	return refuse(http.StatusNotFound, "PoPs take payloads alone; this is done by clusters, of which none can be reached from outside now")
}
