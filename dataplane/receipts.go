package dataplane

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/dataplane/spool"
)

// ReceiptsPath is below what a client asks what has become of a request: by its id, with the key that it was sent with.
const ReceiptsPath = "/api/v1/receipts/"

// maxRequestID is how long a request id may be.
const maxRequestID = 128

// Outcome is the answer to such a question.
type Outcome struct {
	ID       string     `json:"id"`
	Status   string     `json:"status"` // accepted, delivered or dead-lettered
	SHA256   string     `json:"sha256"`
	Service  string     `json:"service"`
	Accepted time.Time  `json:"accepted"`
	Time     *time.Time `json:"time,omitempty"`    // when it was delivered, or became a dead letter
	Cluster  string     `json:"cluster,omitempty"` // that has it
	Reason   string     `json:"reason,omitempty"`  // why it is a dead letter
}

// Peer asks another PoP. The answer is nil if it does not know. The error is ErrNoPeers when no PoP can be asked at all.
type Peer func(ctx context.Context, pop, id, keyID string) (*Outcome, error)

// ErrNoPeers says that PoPs do not ask each other here.
var ErrNoPeers = errors.New("PoPs do not ask each other")

// Seal returns what has a spool's envelopes signed, for spool.Options.
func Seal(signer *receipt.Signer, pop string) func([]*spool.Envelope) {
	var claims []receipt.Claims // used by one goroutine at a time
	return func(batch []*spool.Envelope) {
		claims = claims[:0]
		for _, e := range batch {
			claims = append(claims, claimsOf(e, pop))
		}
		for i, text := range signer.Sign(claims) {
			batch[i].Receipt = text
		}
	}
}

func claimsOf(e *spool.Envelope, pop string) receipt.Claims {
	return receipt.Claims{ID: e.ID, SHA256: hex.EncodeToString(e.SHA256[:]), KeyID: e.KeyID, PoP: pop, Service: e.Service, Time: e.Received}
}

// outcome answers a question about a request.
func (p *PoP) outcome(in *intake) *refusal {
	if in.Method != http.MethodGet && in.Method != http.MethodHead {
		in.allow = "GET, HEAD"
		return refuse(http.StatusMethodNotAllowed, "what has become of a request is asked for by GET")
	}
	if why, ok := p.enter(in); !ok {
		return overloaded(in, why)
	}
	snap := p.config.Snapshot()
	if snap == nil {
		return refuse(http.StatusServiceUnavailable, "this PoP has not read its topology yet")
	}
	if in.offer = p.offers(snap).service(p.config.Name, in.Host); in.offer == nil {
		return refuse(http.StatusMisdirectedRequest, "host %.100q is not a service of this PoP", in.Host)
	}
	if refused := p.authenticate(snap, in); refused != nil {
		return refused
	}
	id := strings.TrimPrefix(in.Path, ReceiptsPath)
	pop, core, ok := strings.Cut(id, ".")
	if !ok || core == "" || len(id) > maxRequestID || snap.Topology.PoPs[pop] == nil {
		return refuse(http.StatusNotFound, "%.40q is no request id of these PoPs", id)
	}
	found, err := p.outcomeOf(in.Context, pop, id, in.keyID)
	switch {
	case errors.Is(err, ErrNoPeers):
		return refuse(http.StatusNotFound, "PoP %s has this request: ask there, at %[1]s.%s", pop, in.offer.name)
	case err != nil:
		p.config.Log.Debug("ask another PoP", "pop", pop, "error", err)
		return &refusal{status: http.StatusServiceUnavailable, detail: "PoP " + pop + ", which has the request, cannot be asked now", retryAfter: 2 * time.Second}
	case found == nil || found.Service != in.offer.name:
		return refuse(http.StatusNotFound, "no request with the id %.40q was accepted from this key, or it is too long ago", id)
	}
	body, err := json.Marshal(found)
	if err != nil {
		panic(err) // texts and times can be written
	}
	in.answer.Status = http.StatusOK
	in.answer.Add("content-type", "application/json")
	in.answer.Add("cache-control", "no-store")
	in.answer.Body = append(append(in.answer.Body[:0], body...), '\n')
	return nil
}

// outcomeOf returns what is known of a request, here or in another PoP; nil if there is no such request of the key.
func (p *PoP) outcomeOf(ctx context.Context, pop, id, keyID string) (*Outcome, error) {
	if pop == p.config.Name {
		return p.Outcome(id, keyID), nil
	}
	if p.config.Peer == nil {
		return nil, ErrNoPeers
	}
	return p.config.Peer(ctx, pop, id, keyID)
}

// Outcome returns what has become of a request that this PoP has accepted from a key; nil if there is none.
func (p *PoP) Outcome(id, keyID string) *Outcome {
	known, ok := p.config.Spool.Lookup(id)
	if !ok || known.KeyID != keyID {
		return nil
	}
	o := &Outcome{
		ID: known.ID, Status: known.State.String(), SHA256: hex.EncodeToString(known.SHA256[:]), Service: known.Service,
		Accepted: known.Accepted.UTC(), Cluster: known.Cluster, Reason: known.Reason,
	}
	if !known.Settled.IsZero() {
		settled := known.Settled.UTC()
		o.Time = &settled
	}
	return o
}
