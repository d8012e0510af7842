package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

// Client does all Operations by asking a control plane. It is safe for concurrent use.
type Client struct {
	base  string
	token func() (string, error)
	http  *http.Client
}

var _ Operations = (*Client)(nil)

// ClientConfig says where a control plane is, and who is asking.
type ClientConfig struct {
	URL   string                 // such as https://control.example.net
	Token func() (string, error) // called for each request, so that a new one takes effect; nil for none
	Roots *x509.CertPool         // of the control plane's certificate; nil: those of the system
	Cert  *tls.Certificate       // of the client; nil for none
}

const (
	clientPatience  = 30 * time.Second // for an answer, when the context has no deadline
	readAttempts    = 3
	maxAnswerBytes  = 64 << 20
	maxEventBytes   = 16 << 20
	firstRetryPause = 100 * time.Millisecond
)

// NewClient returns a client. The error says what is wrong with the URL: a token goes over plain HTTP to this machine only.
func NewClient(c ClientConfig) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not a URL such as https://control.example.net", c.URL)
	}
	if u.Scheme == "http" && c.Token != nil && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("%s: a token would be sent in clear to another machine: want https", c.URL)
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 8,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.Roots},
		Proxy:           http.ProxyFromEnvironment,
	}
	if c.Cert != nil {
		transport.TLSClientConfig.Certificates = []tls.Certificate{*c.Cert}
	}
	return &Client{base: strings.TrimSuffix(c.URL, "/"), token: c.Token, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// remoteError is what a control plane said.
type remoteError struct {
	detail string
	is     []error
}

func (e *remoteError) Error() string   { return e.detail }
func (e *remoteError) Unwrap() []error { return e.is }

// errorOf reads a problem document.
func (c *Client) errorOf(code int, body []byte) error {
	var document struct {
		problem.Document
		Faults  []topology.Fault `json:"faults"`
		Changed []string         `json:"changed"`
	}
	e := &remoteError{detail: fmt.Sprintf("the control plane at %s answered %d %s", c.base, code, http.StatusText(code))}
	if json.Unmarshal(body, &document) == nil && document.Detail != "" {
		e.detail = document.Detail
	}
	if sentinel := sentinels[code]; sentinel != nil {
		e.is = append(e.is, sentinel)
	}
	if code == http.StatusPreconditionFailed || len(document.Changed) > 0 {
		e.is = append(e.is, ErrConflict)
	}
	if len(document.Faults) > 0 {
		e.is = append(e.is, &topology.InvalidError{Faults: document.Faults})
	}
	return e
}

// read asks for something, and again when that fails in a way that may pass.
func (c *Client) read(ctx context.Context, path string, query url.Values, result any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for attempt, pause := 1, firstRetryPause; ; attempt, pause = attempt+1, 2*pause {
		err, passes := c.once(ctx, http.MethodGet, path, query, nil, result)
		if err == nil || !passes || attempt == readAttempts {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// write changes something. It is not tried again: it may have been done.
func (c *Client) write(ctx context.Context, method, path string, body, result any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err, _ := c.once(ctx, method, path, nil, body, result)
	return err
}

// bounded gives a context a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, clientPatience)
}

// once sends a request. It reports whether its failure may pass.
func (c *Client) once(ctx context.Context, method, path string, query url.Values, body, result any) (err error, passes bool) {
	response, err := c.send(ctx, method, path, query, body, nil)
	if err != nil {
		return err, ctx.Err() == nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the control plane's answer: %w", err), true
	case len(text) > maxAnswerBytes:
		return fmt.Errorf("the control plane's answer has more than %d bytes", maxAnswerBytes), false
	case response.StatusCode == http.StatusNoContent:
		return nil, false
	case response.StatusCode != http.StatusOK:
		code := response.StatusCode
		return c.errorOf(code, text), code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout
	case result == nil:
		return nil, false
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("read the control plane's answer: %w", err), false
	}
	return nil, false
}

// send sends a request.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any, header http.Header) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, err
	}
	for name := range header {
		request.Header.Set(name, header.Get(name))
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != nil {
		secret, err := c.token()
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer "+secret)
	}
	response, err := c.http.Do(request)
	if failure := (*url.Error)(nil); errors.As(err, &failure) {
		return nil, fmt.Errorf("ask the control plane at %s: %w", c.base, failure.Err)
	}
	return response, err
}

// values are the parameters of a query; those that are empty, 0 or false are left out.
func values(pairs ...any) url.Values {
	query := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name := pairs[i].(string)
		switch value := pairs[i+1].(type) {
		case string:
			if value != "" {
				query.Set(name, value)
			}
		case int:
			if value != 0 {
				query.Set(name, strconv.Itoa(value))
			}
		case int64:
			if value != 0 {
				query.Set(name, strconv.FormatInt(value, 10))
			}
		case bool:
			if value {
				query.Set(name, "true")
			}
		case []string:
			query[name] = value
		}
	}
	return query
}
