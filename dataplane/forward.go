package dataplane

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// Times of forwarding.
const (
	attemptTimeout = 10 * time.Second // of one request to a cluster
	attemptGrace   = time.Second      // for those in flight when the PoP ends
	firstDelay     = 100 * time.Millisecond
	longestDelay   = 5 * time.Second
	maxPostponed   = 1024 // envelopes that wait in memory for their next attempt
)

// envelopePath is where clusters take envelopes, below an endpoint.
const envelopePath = "/api/v1/envelopes"

// forward sends what is in the spool to clusters, some at a time, until ctx ends.
func (p *PoP) forward(ctx context.Context) {
	dial := p.config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	transport := &http.Transport{
		DialContext: dial, TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: p.config.Workers,
		IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	f := &forwarder{PoP: p, transport: transport, later: newPostponed(p.config.Spool.Return)}
	var running sync.WaitGroup
	running.Go(func() { f.later.run(ctx) })
	for range p.config.Workers {
		running.Go(func() { f.work(ctx) })
	}
	running.Wait()
}

type forwarder struct {
	*PoP
	transport http.RoundTripper
	later     *postponed
}

// work delivers one envelope after the other. One that no cluster takes now is postponed; while no cluster can be reached
// at all, the worker waits with it.
func (f *forwarder) work(ctx context.Context) {
	for {
		item, err := f.config.Spool.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.config.Log.Error("an envelope cannot be forwarded", "error", err)
			continue
		}
		for attempt := item.Attempts; ; attempt++ {
			done, reached := f.deliver(ctx, item)
			if done {
				break
			}
			f.counts.retried.Add(1)
			wait := delay(attempt)
			if reached && f.later.add(item, time.Now().Add(wait)) {
				break
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return // the next start finds the envelope
			}
		}
	}
}

// delay is the time before another attempt: it doubles, and half of it is random.
func delay(attempt int) time.Duration {
	longest := min(longestDelay, firstDelay<<min(attempt, 10))
	return longest/2 + rand.N(longest/2)
}

// deliver tries clusters in order. It reports whether the envelope has left the spool, and whether a cluster answered.
func (f *forwarder) deliver(ctx context.Context, item *spool.Item) (done, reached bool) {
	for _, to := range f.clusters.order(item.Service) {
		status, reason, err := f.send(ctx, to, item)
		if ctx.Err() != nil && err != nil {
			return false, false
		}
		if err != nil {
			f.config.Log.Debug("a cluster does not take an envelope", "cluster", to.name, "id", item.ID, "error", err)
			reached = reached || status > 0
			continue
		}
		if reason != "" {
			return f.bury(to, item, reason), true
		}
		f.counts.forwarded.Add(1)
		if f.config.Acknowledged != nil {
			f.config.Acknowledged(item.Envelope, to.name)
		}
		f.config.Spool.Delivered(item, to.name)
		return true, true
	}
	return false, reached
}

func (f *forwarder) bury(from destination, item *spool.Item, reason string) bool {
	if err := f.config.Spool.Bury(item, "cluster "+from.name+" "+reason); err != nil {
		f.config.Log.Error("a dead letter cannot be kept; its envelope stays in the queue", "error", err)
		return false
	}
	f.config.Log.Warn("a cluster refused an envelope for good; it is a dead letter now", "cluster", from.name, "id", item.ID, "reason", reason)
	return true
}

// send sends an envelope to a cluster, by the first of its endpoints that answers. The reason is why the cluster refuses the
// payload for good; an error is worth another attempt; the status is 0 when there was no answer.
func (f *forwarder) send(ctx context.Context, to destination, item *spool.Item) (status int, reason string, err error) {
	response, err := to.breaker.Execute(func() (*http.Response, error) {
		var failures []error
		for _, endpoint := range to.Endpoints {
			response, err := f.post(ctx, endpoint, to.name, item)
			if err == nil && retryable(response.StatusCode) {
				status, err = response.StatusCode, fmt.Errorf("%s answered %s", endpoint, response.Status)
			}
			if err == nil {
				return response, nil
			}
			failures = append(failures, err)
		}
		return nil, errors.Join(failures...)
	})
	switch {
	case err != nil:
		return status, "", err
	case response.StatusCode < 300 || response.StatusCode == http.StatusConflict:
		return response.StatusCode, "", nil
	}
	return response.StatusCode, "answered " + response.Status, nil
}

// retryable reports whether a status says nothing about the payload: whatever is neither a success nor a client's error,
// and those of the client's errors that are about this PoP's token, its speed or the moment.
func retryable(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status < 200 || status >= 300 && status < 400 || status >= 500
}

// post sends an envelope to an endpoint, and reads the answer to its end so that the connection can be used again.
func (f *forwarder) post(ctx context.Context, endpoint, cluster string, item *spool.Item) (*http.Response, error) {
	flight, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(attemptGrace, cancel) })()
	request, err := http.NewRequestWithContext(flight, http.MethodPost, strings.TrimSuffix(endpoint, "/")+envelopePath, bytes.NewReader(item.Body))
	if err != nil {
		return nil, err
	}
	request.Header = http.Header{
		"Content-Type":     {cmp.Or(item.ContentType, "application/json")},
		"X-Request-Id":     {item.ID},
		"X-Request-Hash":   {hex.EncodeToString(item.SHA256[:])},
		"X-Edge-Validated": {"1"},
		"Authorization":    {"Bearer " + f.config.ClusterToken(cluster)},
		"User-Agent":       {"isochrone"},
	}
	response, err := f.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	return response, err
}

// postponed holds items until the time of their next attempt.
type postponed struct {
	give func(*spool.Item)
	wake chan struct{}

	mu    sync.Mutex
	items waiting
}

type waitingItem struct {
	*spool.Item
	until time.Time
}

// waiting is a heap of items, the one that waits the shortest first.
type waiting []waitingItem

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].until.Before(w[j].until) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)        { *w = append(*w, x.(waitingItem)) }
func (w *waiting) Pop() any {
	old := *w
	last := old[len(old)-1]
	*w = old[:len(old)-1]
	return last
}

func newPostponed(give func(*spool.Item)) *postponed {
	return &postponed{give: give, wake: make(chan struct{}, 1)}
}

// add postpones an item, and reports false when there are too many.
func (p *postponed) add(item *spool.Item, until time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.items) >= maxPostponed {
		return false
	}
	heap.Push(&p.items, waitingItem{item, until})
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// run gives items back when their time has come, until ctx ends.
func (p *postponed) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		for len(p.items) > 0 && !time.Now().Before(p.items[0].until) {
			p.give(heap.Pop(&p.items).(waitingItem).Item)
		}
		next := time.Hour
		if len(p.items) > 0 {
			next = time.Until(p.items[0].until)
		}
		p.mu.Unlock()
		timer.Reset(next)
	}
}
