package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/topology/store"
)

// silence is how long a stream may say nothing before it is held to be dead, and requestTimeout how long an answer may take.
const (
	silence        = 15 * time.Second
	requestTimeout = 5 * time.Second
	reportInterval = 5 * time.Second
)

// Client is a node's side of the relay. It is safe for concurrent use.
type Client struct {
	urls    []string
	http    *http.Client
	silence time.Duration
	at      atomic.Int64  // counts up when a relay fails: the URL in use, modulo their number
	opened  atomic.Int64  // counts streams
	newest  atomic.Int64  // the revision of the newest update that was taken; 0 for none
	open    chan struct{} // has something after a stream was opened
}

// NewClient returns a client of relays, which are tried in turn, such as https://control.example.net:8443. The TLS configuration has
// the client's certificate and the CA of the relays.
func NewClient(urls []string, config *tls.Config) *Client {
	bases := make([]string, len(urls))
	for i, url := range urls {
		bases[i] = strings.TrimSuffix(url, "/")
	}
	return &Client{urls: bases, silence: silence, open: make(chan struct{}, 1), http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true, TLSHandshakeTimeout: silence, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}}}
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// url returns the relay in use.
func (c *Client) url() string { return c.urls[int(c.at.Load())%len(c.urls)] }

// Feed is a store.Feed of what the relay has for this kind of node. After a failure the next one uses the next relay.
func (c *Client) Feed(ctx context.Context, has store.Sum, take func(store.Update) error) error {
	url := c.url()
	err := c.feed(ctx, url, has, take)
	if ctx.Err() == nil {
		c.at.Add(1)
		err = fmt.Errorf("follow the relay %s: %w", url, err)
	}
	return err
}

var errSilent = errors.New("it has said nothing for too long")

func (c *Client) feed(ctx context.Context, url string, has store.Sum, take func(store.Update) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s%s?sum=%v&revision=%d", url, watchPath, has, c.newest.Load()), nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return because(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refusal(response)
	}
	c.opened.Add(1)
	select {
	case c.open <- struct{}{}:
	default:
	}
	body := reader{response.Body, func() { watchdog.Reset(c.silence) }}
	for {
		update, err := readUpdate(body)
		if err == io.EOF {
			return errors.New("it has ended the stream")
		}
		if err != nil {
			return because(ctx, err)
		}
		if err := take(update); err != nil {
			c.newest.Store(0) // what it has is not what it should be
			return err
		}
		c.newest.Store(update.Revision)
	}
}

// because returns why a context was ended, if it was, else the error.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// reader tells when something has been read.
type reader struct {
	io.Reader
	heard func()
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.heard()
	}
	return n, err
}

// refusal is what a relay answered instead of what was asked for.
func refusal(response *http.Response) error {
	var said struct {
		Detail string `json:"detail"`
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if json.Unmarshal(text, &said) == nil && said.Detail != "" {
		return fmt.Errorf("it says %s: %s", response.Status, said.Detail)
	}
	return fmt.Errorf("it says %s", response.Status)
}

// reportPause is the time between two reports of a vantage, at least.
const reportPause = 250 * time.Millisecond

// Register has the relay tell the store of this node until ctx ends, whose error it returns. Its record is asked for every few seconds, and
// its report too whenever it has changed. The relay knows the node's name from its certificate.
func (c *Client) Register(ctx context.Context, p store.Presence) error {
	look := time.NewTicker(reportInterval)
	defer look.Stop()
	var told presence
	changed, again := p.Changed, (<-chan time.Time)(nil)
	for toldTo := int64(0); ; {
		select {
		case <-c.open:
		case <-look.C:
		case <-changed:
			changed, again = nil, time.After(reportPause)
		case <-again:
			changed, again = p.Changed, nil
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		now := presence{Node: p.Node()}
		if p.Report != nil {
			now.Report = p.Report()
		}
		if p.Announces != nil {
			now.Announces = p.Announces()
		}
		stream := c.opened.Load()
		if stream > 0 && (!now.Node.Equal(told.Node) || !bytes.Equal(now.Report, told.Report) || !bytes.Equal(now.Announces, told.Announces) || stream != toldTo) {
			if c.Post(ctx, reportPath, now, nil) == nil { // else it is tried again; who follows tells why there is no relay
				told, toldTo = now, stream
			}
		}
	}
}

// Quota asks for the number of the present window and for grants, as dataplane/quota's Store does. After an error they may have been made:
// then they are lost.
func (c *Client) Quota(ctx context.Context, q Quota) (QuotaAnswer, error) {
	var got QuotaAnswer
	if err := c.Post(ctx, quotaPath, q, &got); err != nil {
		return QuotaAnswer{}, fmt.Errorf("quota: %w", err)
	}
	if len(got.Grants) != len(q.Asks) {
		return QuotaAnswer{}, fmt.Errorf("quota: %d answers for %d keys", len(got.Grants), len(q.Asks))
	}
	for i, g := range got.Grants {
		if g.Granted < 0 || g.Granted > q.Asks[i].Want {
			return QuotaAnswer{}, fmt.Errorf("quota of key %s: %d of %d wanted", q.Asks[i].Key, g.Granted, q.Asks[i].Want)
		}
	}
	return got, nil
}

// Post sends JSON to the relay in use and reads its answer, which is not wanted when it is nil.
func (c *Client) Post(ctx context.Context, path string, ask, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode/100 != 2:
		return refusal(response)
	case answer == nil:
		return nil
	}
	return readJSON(io.LimitReader(response.Body, maxBody), answer)
}
