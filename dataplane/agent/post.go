package agent

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/intakeclient"
)

// How an agent repeats.
const (
	roundTimeout = 15 * time.Second       // of one attempt at all PoPs; longer than a PoP waits for a cluster
	outage       = 16                     // rounds that fail one after the other, from which on it is not the payloads
	probeEach    = 200 * time.Millisecond // about, that one of all payloads that wait is tried in an outage
	longestProbe = 10 * time.Minute       // that one of them waits
	hastenEach   = 10 * time.Second       // at most, that all which wait are tried because one got through
)

func (a *Agent) work(ctx context.Context) {
	for a.hasQuota(ctx) {
		item, err := a.config.Queue.Next(ctx)
		if ctx.Err() != nil {
			if err == nil {
				a.config.Queue.Return(item)
			}
			return
		}
		if err != nil {
			a.config.Log.Error("a queued payload cannot be read", "error", err)
			continue
		}
		a.post(ctx, item)
	}
}

// hasQuota waits until the key has some again, as far as is known, and reports whether ctx goes on.
func (a *Agent) hasQuota(ctx context.Context) bool {
	a.mu.Lock()
	wait := time.Until(a.quota)
	a.mu.Unlock()
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// post tries to bring one payload to some PoP. If none gives a final answer, it goes back into the queue for later, so that it holds no others up.
func (a *Agent) post(ctx context.Context, item *spool.Item) {
	header := http.Header{
		"X-Api-Key": {a.config.Key}, "Content-Type": {item.ContentType}, "Idempotency-Key": {idempotencyKey(item.ID)}, "User-Agent": {"isochrone-agent"},
	}
	unpack(item.Traceparent, header)
	round, cancel := context.WithTimeout(ctx, roundTimeout)
	answer, err := a.config.Sender.SendOnce(round, header, bytes.Clone(item.Body))
	cancel()
	switch {
	case ctx.Err() != nil && (err != nil || !intakeclient.Final(answer.Status)): // the agent is ending
		a.config.Queue.Return(item)
	case err != nil || !intakeclient.Final(answer.Status):
		a.later(item, answer, err)
	default:
		a.through()
		a.settle(item, answer)
	}
}

// later puts a payload off: by a random time that grows with its own attempts. When nothing at all gets through, it is by so much that all that wait
// together are no burden to PoPs that come back; new payloads are still tried once each, and the first success has all tried again.
func (a *Agent) later(item *spool.Item, answer *intakeclient.Answer, err error) {
	a.counts.retried.Add(1)
	wait := intakeclient.Backoff(item.Attempts, answer)
	status := 0
	if answer != nil {
		status = answer.Status
	}
	a.mu.Lock()
	if status == http.StatusTooManyRequests { // about the key, so that there is no use in trying others
		if until := time.Now().Add(wait); until.After(a.quota) {
			a.quota = until
		}
	} else if a.failed++; a.failed >= outage {
		a.putOff = true
		wait = max(wait, rand.N(min(longestProbe, time.Duration(a.config.Queue.Stats().Later+1)*probeEach)))
	}
	a.mu.Unlock()
	a.config.Log.Debug("a payload is tried again later", "id", item.ID, "attempts", item.Attempts+1, "wait", wait, "status", status, "error", err)
	a.config.Queue.ReturnAt(item, time.Now().Add(wait))
}

// through notes that a PoP has given a final answer: then what an outage has put off is tried now. Payloads that fail while others do not
// are so tried no more often than by themselves.
func (a *Agent) through() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = 0
	if now := time.Now(); a.putOff && now.Sub(a.hastened) > hastenEach {
		a.putOff, a.hastened = false, now
		a.config.Queue.Hasten()
	}
}

// settle ends what a PoP has accepted, or has refused for good.
func (a *Agent) settle(item *spool.Item, answer *intakeclient.Answer) {
	if answer.Status == http.StatusAccepted {
		a.counts.accepted.Add(1)
		a.tell(item.ID, answer)
		a.config.Queue.Delivered(item, answer.Header.Get("X-Isochrone-Pop"))
		return
	}
	a.counts.refused.Add(1)
	if a.tell(item.ID, answer) {
		a.config.Queue.Acknowledge(item) // the program knows, and the queue need not keep it
		return
	}
	reason := fmt.Sprintf("PoP %s answered %d: %.500s", answer.Header.Get("X-Isochrone-Pop"), answer.Status, answer.Body)
	a.config.Log.Warn("a payload was refused for good; it is a dead letter now", "id", item.ID, "status", answer.Status)
	a.counts.dead.Add(1)
	if err := a.config.Queue.Bury(item, reason); err != nil {
		a.config.Log.Error("a dead letter cannot be kept; its payload stays in the queue", "error", err)
		a.config.Queue.ReturnAt(item, time.Now().Add(busyWait))
	}
}
