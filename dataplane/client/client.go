// Package client posts payloads to an Isochrone intake, for programs of node operators. It finds the service's PoPs by DNS (HTTPS records,
// RFC 9460), speaks HTTP/3 and, where UDP does not get through, HTTP/2, tries the second choice when the first is late, and repeats until
// the answer is final: each payload has an Idempotency-Key, by which repetitions are known.
package client

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/isochrone/isochrone/internal/intakeclient"
)

// The errors of Post by which a caller decides. Their text says what the PoP has said.
var (
	ErrUnauthorized = errors.New("the key is not good for this") // 401, 403
	ErrInvalid      = errors.New("the payload is refused")       // 400, 413, 415, 422: it would be refused again
	ErrUnavailable  = errors.New("no PoP has accepted it")       // until the context ended; it may have been accepted all the same
	ErrOther        = errors.New("an answer that is none of an intake")
)

// QuotaError says that the key's quota was used up when the context ended.
type QuotaError struct{ RetryAfter time.Duration }

// Error implements error.
func (e *QuotaError) Error() string {
	return fmt.Sprintf("the key's quota is used up; there is more in %v", e.RetryAfter)
}

// Config is what a client needs. Zero values stand for the defaults.
type Config struct {
	Service string         // host name, required
	Key     string         // API key, required
	DNS     string         // address and port of the DNS server; default: the first one of /etc/resolv.conf
	Roots   *x509.CertPool // default: the system's
	OnlyTCP bool           // no HTTP/3

	// EarlyData has the first payload on a new connection be sent in TLS early data, where a session can be resumed and the service takes it:
	// that saves a round trip. Who looks on may send it again (RFC 8470), by which nothing is accepted twice, since it has an Idempotency-Key.
	EarlyData bool
}

// Client posts to one service. It may be used concurrently. Close it.
type Client struct {
	config Config
	sender *intakeclient.Sender
}

// New returns a client without connections.
func New(c Config) (*Client, error) {
	if c.Service == "" || c.Key == "" {
		return nil, errors.New("a client needs the name of a service and an API key")
	}
	var err error
	if c.DNS == "" {
		if c.DNS, err = intakeclient.SystemResolver(); err != nil {
			return nil, err
		}
	}
	resolver := &intakeclient.Resolver{Server: c.DNS}
	return &Client{c, intakeclient.NewSender(intakeclient.SenderConfig{
		Service: c.Service, Resolve: resolver.Lookup, Config: intakeclient.Config{Roots: c.Roots, Early: c.EarlyData}, OnlyTCP: c.OnlyTCP,
	})}, nil
}

// Close closes the connections.
func (c *Client) Close() error { return c.sender.Close() }

// Payload is what to post. Its zero values stand for JSON and for a random Idempotency-Key.
type Payload struct {
	Body           []byte
	ContentType    string
	IdempotencyKey string // the same for the same event, if the program knows one: then it is accepted once even over restarts
}

// Accepted says that a PoP has accepted a payload.
type Accepted struct {
	ID      string // of the request
	SHA256  string // of the payload, lower-case hex
	Receipt string // signed by the PoP; see package dataplane/receipt. Empty where the service has none
	PoP     string
	Cluster string // that is next
}

// Post posts a payload and returns when a PoP has accepted it, has refused it for good, or ctx ends.
func (c *Client) Post(ctx context.Context, p Payload) (*Accepted, error) {
	header := http.Header{"X-Api-Key": {c.config.Key}, "Content-Type": {cmp.Or(p.ContentType, "application/json")}}
	if p.IdempotencyKey != "" {
		header.Set("Idempotency-Key", p.IdempotencyKey)
	}
	answer, err := c.sender.Send(ctx, header, p.Body)
	if err != nil {
		if answer != nil && answer.Status == http.StatusTooManyRequests {
			seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
			return nil, &QuotaError{time.Duration(seconds) * time.Second}
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var told struct{ ID, SHA256, Receipt, Title, Detail string }
	if err := json.Unmarshal(answer.Body, &told); err != nil {
		return nil, fmt.Errorf("%w: %d, not in JSON", ErrOther, answer.Status)
	}
	switch answer.Status {
	case http.StatusAccepted:
		return &Accepted{told.ID, told.SHA256, told.Receipt, answer.Header.Get("X-Isochrone-Pop"), answer.Header.Get("X-Isochrone-Cluster")}, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w: %d %s: %s", ErrUnauthorized, answer.Status, told.Title, told.Detail)
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("%w: %d %s: %s", ErrInvalid, answer.Status, told.Title, told.Detail)
	}
	return nil, fmt.Errorf("%w: %d %s: %s", ErrOther, answer.Status, told.Title, told.Detail)
}
