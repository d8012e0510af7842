package dataplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/topology"
)

// Accepted is the body of a 202.
type Accepted struct {
	Status  string `json:"status"` // "accepted"
	ID      string `json:"id"`
	SHA256  string `json:"sha256"`            // of the body that was received: lower-case hex, 64 characters
	Receipt string `json:"receipt,omitempty"` // signed by the PoP; none of a probe
}

// accept makes a payload safe and answers 202.
func (p *PoP) accept(in *intake) *refusal {
	var secret []byte
	if in.idempotencyKey != "" {
		secret = p.config.Secret(in.offer.name)
	}
	envelope := &spool.Envelope{
		ID: requestID(p.config.Name, secret, in.keyID, in.idempotencyKey), SHA256: in.sha256, KeyID: in.keyID, Service: in.offer.name,
		ContentType: in.Header.Get("Content-Type"), Window: in.quota.Window, Traceparent: in.span.Traceparent(), Received: in.began, Body: in.body,
	}
	var refused *refusal
	if in.probe {
		refused = p.unsafe(p.config.Spool.Check())
		p.left(in)
	} else {
		envelope, refused = p.safe(in, envelope)
	}
	if refused != nil {
		return refused
	}
	if in.probe {
		p.counts.probes.Add(1)
	} else {
		p.counts.accepted.Add(1)
	}
	in.id = envelope.ID
	in.cluster = p.forward.Next(in.offer.name)
	in.accepted(envelope)
	return nil
}

// left notes that a request does not wait for the disk any more. What it waits for then, such as a cluster, is no load of this PoP.
func (p *PoP) left(in *intake) {
	in.stored = time.Now()
	p.front.overload.Leave(&in.Ticket, in.stored.Sub(in.received))
}

// accepted writes the 202.
func (in *intake) accepted(e *spool.Envelope) {
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], e.SHA256[:])
	a, digits := in.answer, string(text[:])
	a.Status = http.StatusAccepted
	a.Add("content-type", "application/json")
	a.Add("x-request-hash", digits)
	if in.cluster != "" {
		a.Add("x-isochrone-cluster", in.cluster)
	}
	if !in.probe {
		a.Add("x-isochrone-window", strconv.FormatInt(in.quota.Window, 10))
		rateLimit(a, in.quota)
	}
	b := append(a.Body[:0], `{"status":"accepted","id":"`...) // none of the texts has a character that JSON escapes
	b = append(append(b, e.ID...), `","sha256":"`...)
	b = append(b, digits...)
	if e.Receipt != "" {
		b = append(append(b, `","receipt":"`...), e.Receipt...)
		e.Receipt = "" // the spool keeps the envelope, and nobody else needs it
	}
	a.Body = append(b, '"', '}', '\n')
}

// rateLimit tells a client of its quota (draft-ietf-httpapi-ratelimit-headers).
func rateLimit(a *exchange.Answer, d quota.Decision) {
	if d.Limit == 0 {
		return
	}
	var text [64]byte
	b := strconv.AppendInt(append(text[:0], `"minute";q=`...), d.Limit, 10)
	a.Add("ratelimit-policy", string(append(b, ";w=60"...)))
	b = strconv.AppendInt(append(text[:0], `"minute";r=`...), d.Remaining, 10)
	b = strconv.AppendInt(append(b, ";t="...), int64(math.Ceil(d.Reset.Seconds())), 10)
	a.Add("ratelimit", string(b))
}

// safe makes an envelope as safe as its service wants it. It returns the one that is answered: the same, or what was accepted before of a
// request with the same Idempotency-Key.
func (p *PoP) safe(in *intake, e *spool.Envelope) (*spool.Envelope, *refusal) {
	ack := in.offer.policy.Ack
	var settled chan spool.Settlement
	var settle func(spool.Settlement)
	if ack == topology.AckCluster {
		settled = make(chan spool.Settlement, 1)
		settle = func(s spool.Settlement) { settled <- s }
	}
	var earlier *spool.Outcome
	var err error
	switch {
	case in.idempotencyKey != "":
		earlier, err = p.config.Spool.AppendOnce(e, settle)
	case ack == topology.AckMemory:
		err = p.config.Spool.AppendEarly(e, nil)
	default:
		err = p.config.Spool.Append(e, settle)
	}
	p.left(in)
	switch {
	case err != nil:
		return e, p.unsafe(err)
	case earlier != nil:
		return p.again(e, earlier, ack)
	case ack == topology.AckCluster:
		return e, p.acknowledged(in.Context, e, settled)
	}
	return e, nil
}

// again answers a request that was accepted before.
func (p *PoP) again(e *spool.Envelope, earlier *spool.Outcome, ack topology.Ack) (*spool.Envelope, *refusal) {
	if earlier.SHA256 != e.SHA256 {
		return e, refuse(http.StatusUnprocessableEntity, "another payload was accepted with this Idempotency-Key, as request %s", earlier.ID)
	}
	if ack == topology.AckCluster && earlier.State != spool.Delivered {
		if earlier.State == spool.DeadLettered {
			return e, refuse(http.StatusUnprocessableEntity, "request %s was refused: %s", earlier.ID, earlier.Reason)
		}
		return e, p.notYet(earlier.ID)
	}
	first := *e
	first.ID, first.Received = earlier.ID, earlier.Accepted
	if p.config.Receipts != nil {
		first.Receipt = p.config.Receipts.Sign([]receipt.Claims{claimsOf(&first, p.config.Name)})[0]
	}
	return &first, nil
}

// acknowledged waits for a cluster.
func (p *PoP) acknowledged(ctx context.Context, e *spool.Envelope, settled <-chan spool.Settlement) *refusal {
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
	return p.notYet(e.ID)
}

func (p *PoP) notYet(id string) *refusal {
	return &refusal{
		status:     http.StatusServiceUnavailable,
		detail:     fmt.Sprintf("no cluster has acknowledged request %s in time; it stays queued and will be delivered", id),
		retryAfter: time.Second,
	}
}

// unsafe makes a refusal of the spool's error.
func (p *PoP) unsafe(err error) *refusal {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, spool.ErrFull):
		return &refusal{status: http.StatusServiceUnavailable, detail: "this PoP's queue is full", retryAfter: 5 * time.Second}
	}
	return &refusal{status: http.StatusServiceUnavailable, detail: "this PoP cannot store payloads safely now", retryAfter: 5 * time.Second}
}
