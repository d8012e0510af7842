package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// Tokens are the control API's bearer tokens, as they stand below tokens/ in etcd: hashed. They are looked up in memory, which
// Follow keeps as etcd is; what it knew last stays while etcd is away. A Tokens is safe for concurrent use.
type Tokens struct {
	client *clientv3.Client
	root   string
	now    func() time.Time
	known  atomic.Pointer[map[string]*token] // by id; nil before they have been read
}

// token is a token as it is stored.
type token struct {
	Schema  int       `yaml:"schema"`
	SHA256  string    `yaml:"sha256"` // of the whole token, lower-case hex
	Name    string    `yaml:"name"`
	Role    Role      `yaml:"role"`
	Created time.Time `yaml:"created"`
	Expires time.Time `yaml:"expires,omitempty"`
}

// maxTokens is how many tokens there can be.
const maxTokens = 10_000

const (
	tokenPrefix  = "isot_"
	tokenTimeout = 5 * time.Second
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewTokens returns the tokens below a root such as /isochrone/. The client stays the caller's.
func NewTokens(client *clientv3.Client, root string) *Tokens {
	return &Tokens{client: client, root: strings.TrimSuffix(root, "/") + "/", now: time.Now}
}

// Follow keeps what is known as etcd is until ctx ends, whose error it returns. Tell is told why it must begin anew; it may be nil. It must
// not wait.
func (t *Tokens) Follow(ctx context.Context, tell func(error)) error {
	const below = "tokens/"
	known := map[string]*token{}
	return (&store.Tail{
		Feed: store.New(t.client, t.root).Feed(store.Sections{below}),
		Take: func(u store.Update) {
			for _, key := range u.Delete {
				delete(known, strings.TrimPrefix(key, below))
			}
			for key, value := range u.Put {
				id := strings.TrimPrefix(key, below)
				delete(known, id)
				if read, ok := parseToken(value); ok && !strings.Contains(id, "/") { // below others stand those of nodes
					known[id] = read
				}
			}
			now := maps.Clone(known) // readers have the one before
			t.known.Store(&now)
		},
		Contact: func(err error) {
			if err != nil && tell != nil {
				tell(err)
			}
		},
	}).Run(ctx)
}

// Load reads the tokens, so that they are known before Follow does.
func (t *Tokens) Load(ctx context.Context) error {
	known, err := t.load(ctx)
	if err == nil {
		t.known.CompareAndSwap(nil, &known)
	}
	return err
}

// load reads all tokens. What is no token counts as none.
func (t *Tokens) load(ctx context.Context) (map[string]*token, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	response, err := t.client.Get(ctx, t.root+"tokens/", clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	known := map[string]*token{}
	for _, kv := range response.Kvs {
		id := strings.TrimPrefix(string(kv.Key), t.root+"tokens/")
		if read, ok := parseToken(kv.Value); ok && !strings.Contains(id, "/") { // below others stand those of nodes
			known[id] = read
		}
	}
	return known, nil
}

// parseToken reads a stored token. One of a newer schema, or with a role that is not known, opens nothing.
func parseToken(text []byte) (*token, bool) {
	read := new(token)
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if decoder.Decode(read) != nil || read.Schema < topology.FirstSchema || topology.IsTooNew(read.Schema) || len(read.SHA256) != 64 || !slices.Contains(roles, read.Role) {
		return nil, false
	}
	return read, true
}

// Knows reports whether a token is stored and has not expired. It asks etcd.
func (t *Tokens) Knows(ctx context.Context, secret string) (bool, error) {
	known, err := t.load(ctx)
	if err != nil {
		return false, err
	}
	stored := known[tokenID(secret)]
	return stored != nil && stored.SHA256 == topology.HashKey(secret) && !stored.expired(t.now()), nil
}

// Authenticate returns whose token it is. The errors are ErrUnauthorized, and ErrNotReady before the tokens have been read.
func (t *Tokens) Authenticate(secret string) (Identity, error) {
	known := t.known.Load()
	if known == nil {
		return Identity{}, errNoTokens
	}
	hash := topology.HashKey(secret) // of any text, so that time does not tell whether there is such an id
	stored := (*known)[tokenID(secret)]
	if stored == nil {
		stored = &token{SHA256: strings.Repeat("-", len(hash))}
	}
	if subtle.ConstantTimeCompare([]byte(stored.SHA256), []byte(hash)) != 1 {
		return Identity{}, fmt.Errorf("%w: the token is not known", ErrUnauthorized)
	}
	if stored.expired(t.now()) {
		return Identity{}, fmt.Errorf("%w: the token has expired", ErrUnauthorized)
	}
	return Identity{Name: stored.Name, Role: stored.Role}, nil
}

// tokenID returns the id that a token says it has.
func tokenID(secret string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(secret, tokenPrefix), "_")
	return id
}

func (t *token) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

func (t *token) status(id string, now time.Time) TokenStatus {
	return TokenStatus{ID: id, Name: t.Name, Role: t.Role, Created: t.Created, Expires: t.Expires, Expired: t.expired(now)}
}

// list reads all tokens from etcd.
func (t *Tokens) list(ctx context.Context) ([]TokenStatus, error) {
	known, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	list := []TokenStatus{}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		list = append(list, known[id].status(id, t.now()))
	}
	return list, nil
}

// Create makes a token. The errors are ErrInvalid and ErrTooLarge.
func (t *Tokens) Create(ctx context.Context, request TokenRequest, author string) (*NewToken, error) {
	switch {
	case request.Name == "" || len(request.Name) > 100 || strings.ContainsFunc(request.Name, func(r rune) bool { return r < ' ' }):
		return nil, fmt.Errorf("%w: name %q is not 1..100 characters", ErrInvalid, request.Name)
	case !slices.Contains(roles, request.Role):
		return nil, fmt.Errorf("%w: role %q is not one of viewer, operator, admin", ErrInvalid, request.Role)
	case !request.Expires.IsZero() && !request.Expires.After(t.now()):
		return nil, fmt.Errorf("%w: expires %s is over", ErrInvalid, request.Expires.Format(time.RFC3339))
	}
	counting, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	count, err := t.client.Get(counting, t.root+"tokens/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return nil, fmt.Errorf("count tokens: %w", err)
	}
	if count.Count >= maxTokens {
		return nil, fmt.Errorf("%w: there are %d tokens: revoke some", ErrTooLarge, count.Count)
	}
	random := make([]byte, 25)
	rand.Read(random)
	id := tokenEncoding.EncodeToString(random[:5])
	secret := tokenPrefix + id + "_" + tokenEncoding.EncodeToString(random[5:])
	made := &token{
		Schema: topology.FirstSchema, SHA256: topology.HashKey(secret), Name: request.Name, Role: request.Role,
		Created: t.now().UTC().Truncate(time.Second),
	}
	if !request.Expires.IsZero() {
		made.Expires = request.Expires.UTC().Truncate(time.Second)
	}
	key := t.root + "tokens/" + id
	written, err := t.commit(ctx, clientv3.Compare(clientv3.CreateRevision(key), "=", 0), clientv3.OpPut(key, string(topology.MarshalValue(made))),
		author, "put", "tokens/"+id)
	if err == nil && !written {
		err = fmt.Errorf("token %s: %w", id, ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	return &NewToken{TokenStatus: made.status(id, t.now()), Secret: secret}, nil
}

// Revoke deletes a token. The error is ErrNotFound if there is none of that id.
func (t *Tokens) Revoke(ctx context.Context, id, author string) error {
	key := t.root + "tokens/" + id
	written, err := t.commit(ctx, clientv3.Compare(clientv3.CreateRevision(key), ">", 0), clientv3.OpDelete(key), author, "delete", "tokens/"+id)
	if err == nil && !written {
		err = fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	return err
}

// commit carries out an operation with its entry in the audit log, and reports whether the comparison held.
func (t *Tokens) commit(ctx context.Context, same clientv3.Cmp, op clientv3.Op, author, action, object string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	entry := store.AuditEntry{Schema: topology.FirstSchema, Author: author, Time: t.now().UTC(), Action: action, Objects: []string{object}}
	at := fmt.Sprintf("%saudit/%020d-%08x", t.root, entry.Time.UnixNano(), mathrand.Uint32()) // several may write in one nanosecond
	response, err := t.client.Txn(ctx).If(same).Then(op, clientv3.OpPut(at, string(topology.MarshalValue(entry)))).Commit()
	if op.IsDelete() && errors.Is(err, rpctypes.ErrNoSpace) { // a full etcd still deletes, and a token must be revoked
		response, err = t.client.Txn(ctx).If(same).Then(op).Commit()
	}
	if err != nil {
		return false, fmt.Errorf("write to the store: %w", err)
	}
	return response.Succeeded, nil
}
