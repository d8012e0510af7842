package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// ask reads one thing.
func ask[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	result := new(T)
	if err := c.read(ctx, path, query, result); err != nil {
		return nil, err
	}
	return result, nil
}

// list reads a list.
func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var result []T
	err := c.read(ctx, path, nil, &result)
	return result, err
}

// tell writes something and returns what came of it.
func tell[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	result := new(T)
	if err := c.write(ctx, method, path, body, result); err != nil {
		return nil, err
	}
	return result, nil
}

// Status implements Operations.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return ask[Status](ctx, c, "/v1/status", nil)
}

// Explain implements Operations.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (*router.Trace, error) {
	return ask[router.Trace](ctx, c, "/v1/explain", values("service", r.Service, "client", r.Client, "family", r.Family, "if", r.If))
}

// Coloured implements Operations.
func (c *Client) Coloured(ctx context.Context, r ColouredRequest) (*Coloured, error) {
	return ask[Coloured](ctx, c, "/v1/map", values("service", r.Service, "family", r.Family, "by", r.By))
}

// Nodes implements Operations.
func (c *Client) Nodes(ctx context.Context) ([]NodeStatus, error) {
	return list[NodeStatus](ctx, c, "/v1/nodes")
}

// Safe implements Operations.
func (c *Client) Safe(ctx context.Context, r SafeRequest) (*Safety, error) {
	return ask[Safety](ctx, c, "/v1/safe", values("pop", r.PoP, "cluster", r.Cluster))
}

// Topology implements Operations.
func (c *Client) Topology(ctx context.Context) (*Stored, error) {
	return ask[Stored](ctx, c, "/v1/topology", nil)
}

// Object implements Operations.
func (c *Client) Object(ctx context.Context, r topology.Ref) (*StoredObject, error) {
	var answer struct {
		Revision int64  `json:"revision"`
		Text     string `json:"text"`
	}
	if err := c.read(ctx, "/v1/topology/"+url.PathEscape(string(r.Kind))+"/"+url.PathEscape(r.Name), nil, &answer); err != nil {
		return nil, err
	}
	stored := &StoredObject{Revision: answer.Revision, Text: answer.Text}
	if o, faults := topology.ParseObject(r, []byte(answer.Text)); len(faults) == 0 {
		stored.Value = o
	}
	return stored, nil
}

// Apply implements Operations.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (*Applied, error) {
	return tell[Applied](ctx, c, http.MethodPost, "/v1/changes", r)
}

// History implements Operations.
func (c *Client) History(ctx context.Context, p Page) (*HistoryPage, error) {
	return ask[HistoryPage](ctx, c, "/v1/history", values("limit", p.Limit, "after", p.After))
}

// At implements Operations.
func (c *Client) At(ctx context.Context, revision int64) (*Stored, error) {
	return ask[Stored](ctx, c, fmt.Sprintf("/v1/history/%d", revision), nil)
}

// Diff implements Operations.
func (c *Client) Diff(ctx context.Context, r DiffRequest) (*Difference, error) {
	return ask[Difference](ctx, c, "/v1/diff", values("from", r.From, "to", r.To, "effect", r.Effect))
}

// Rollback implements Operations.
func (c *Client) Rollback(ctx context.Context, r RollbackRequest) (*Applied, error) {
	return tell[Applied](ctx, c, http.MethodPost, "/v1/rollback", r)
}

// Doctor implements Operations.
func (c *Client) Doctor(ctx context.Context) (*Diagnosis, error) {
	return ask[Diagnosis](ctx, c, "/v1/doctor", nil)
}

// Overrides implements Operations.
func (c *Client) Overrides(ctx context.Context) ([]OverrideStatus, error) {
	return list[OverrideStatus](ctx, c, "/v1/overrides")
}

// PutOverride implements Operations.
func (c *Client) PutOverride(ctx context.Context, name string, o *topology.Override) (int64, error) {
	done, err := tell[written](ctx, c, http.MethodPut, "/v1/overrides/"+url.PathEscape(name), o)
	if err != nil {
		return 0, err
	}
	return done.Revision, nil
}

// DeleteOverride implements Operations.
func (c *Client) DeleteOverride(ctx context.Context, name string) (int64, error) {
	done, err := tell[written](ctx, c, http.MethodDelete, "/v1/overrides/"+url.PathEscape(name), nil)
	if err != nil {
		return 0, err
	}
	return done.Revision, nil
}

// Keys implements Operations.
func (c *Client) Keys(ctx context.Context, p Page) (*KeyPage, error) {
	return ask[KeyPage](ctx, c, "/v1/keys", values("limit", p.Limit, "after", p.After))
}

// CreateKey implements Operations.
func (c *Client) CreateKey(ctx context.Context, r KeyRequest) (*NewKey, error) {
	return tell[NewKey](ctx, c, http.MethodPost, "/v1/keys", r)
}

// RotateKey implements Operations.
func (c *Client) RotateKey(ctx context.Context, id string, overlap time.Duration) (*NewKey, error) {
	return tell[NewKey](ctx, c, http.MethodPost, "/v1/keys/"+url.PathEscape(id)+"/rotate", rotateBody{topology.Duration(overlap)})
}

// RevokeKey implements Operations.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.write(ctx, http.MethodDelete, "/v1/keys/"+url.PathEscape(id), nil, nil)
}

// Secrets implements Operations.
func (c *Client) Secrets(ctx context.Context) ([]SecretStatus, error) {
	return list[SecretStatus](ctx, c, "/v1/secrets")
}

// PutSecret implements Operations.
func (c *Client) PutSecret(ctx context.Context, name string, s *topology.Sealed) error {
	return c.write(ctx, http.MethodPut, "/v1/secrets/"+url.PathEscape(name), s, nil)
}

// DeleteSecret implements Operations.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	return c.write(ctx, http.MethodDelete, "/v1/secrets/"+url.PathEscape(name), nil, nil)
}

// Tokens implements Operations.
func (c *Client) Tokens(ctx context.Context) ([]TokenStatus, error) {
	return list[TokenStatus](ctx, c, "/v1/tokens")
}

// CreateToken implements Operations.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (*NewToken, error) {
	return tell[NewToken](ctx, c, http.MethodPost, "/v1/tokens", r)
}

// RevokeToken implements Operations.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.write(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, nil)
}

// Invite implements Operations.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (*Invitation, error) {
	return tell[Invitation](ctx, c, http.MethodPost, "/v1/invitations", r)
}

// Expel implements Operations.
func (c *Client) Expel(ctx context.Context, kind, name string) (*Expelled, error) {
	return tell[Expelled](ctx, c, http.MethodDelete, "/v1/nodes/"+url.PathEscape(kind)+"/"+url.PathEscape(name), nil)
}

// Audit implements Operations.
func (c *Client) Audit(ctx context.Context, p Page) (*AuditPage, error) {
	return ask[AuditPage](ctx, c, "/v1/audit", values("limit", p.Limit, "after", p.After))
}

// Whoami implements Operations.
func (c *Client) Whoami(ctx context.Context) (*Identity, error) {
	return ask[Identity](ctx, c, "/v1/whoami", nil)
}

// Events implements Operations. A stream that breaks is taken up again.
func (c *Client) Events(ctx context.Context, take func(Event) error) error {
	for last := ""; ; {
		err := c.stream(ctx, &last, take)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if taken := (*takenError)(nil); errors.As(err, &taken) {
			return taken.error
		}
		if refusal := (*remoteError)(nil); errors.As(err, &refusal) && !errors.Is(err, ErrNotReady) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takenError is an error of the function that events are given to.
type takenError struct{ error }

// stream reads events until the stream ends.
func (c *Client) stream(ctx context.Context, last *string, take func(Event) error) error {
	header := http.Header{}
	if *last != "" {
		header.Set("Last-Event-ID", *last)
	}
	response, err := c.send(ctx, http.MethodGet, eventsPath, nil, nil, header)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		return c.errorOf(response.StatusCode, text)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(make([]byte, 64<<10), maxEventBytes)
	for e := (Event{}); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			e.ID = value
		case "event":
			e.Kind = value
		case "data":
			e.Data = json.RawMessage(value)
		case "":
			if lines.Text() != "" || e.Data == nil { // a comment, or the end of what has no data
				continue
			}
			if err := take(e); err != nil {
				return &takenError{err}
			}
			*last, e = e.ID, Event{}
		}
	}
	return lines.Err()
}
