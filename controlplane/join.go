package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// ErrNotAdmitted is returned to who wants to join or renew and may not. Why is said only to who has shown the token's secret, or a
// certificate of the CA.
var ErrNotAdmitted = errors.New("not admitted")

// Registrar lets new nodes in: it invites them, signs the certificates by which they are known, renews these and turns nodes out.
// What it knows stands in etcd, invitations as hashes below tokens/join/ and nodes below tokens/node/, so that every control plane
// with the CA's key can do it. It is safe for concurrent use.
type Registrar struct {
	Etcd      *clientv3.Client
	Root      string   // in etcd, such as /isochrone/
	CA        *ca.CA   // whose key signs
	URLs      []string // of control planes, which a new node asks
	Relay     []string // URLs where nodes follow the store; empty: those of the control planes
	Endpoints []string // of etcd, for nodes that reach it themselves
	Now       func() time.Time
}

// InviteRequest asks for an invitation of a node.
type InviteRequest struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind,omitempty"`   // pop (default) or dns
	Expires time.Time `json:"expires,omitzero"` // zero stands for an hour from now
	Author  string    `json:"-"`                // who invites, for the audit log
}

// Invitation is one, with its token, which is shown this once.
type Invitation struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Expires time.Time `json:"expires"`
	Etcd    bool      `json:"etcd"` // the node has a user in etcd already
	Token   string    `json:"token"`
}

// JoinRequest is what a new node says.
type JoinRequest struct {
	ID      string `json:"id"`
	Secret  string `json:"secret"`
	Request string `json:"request"` // for a certificate (PKCS #10) in PEM
}

// Joined is what a node gets.
type Joined struct {
	Name        string   `json:"name"`
	Kind        string   `json:"kind"`
	Certificate string   `json:"certificate"` // in PEM
	CA          string   `json:"ca"`          // in PEM
	Control     []string `json:"control"`     // where it renews its certificate
	Relay       []string `json:"relay"`
	Etcd        []string `json:"etcd,omitempty"` // empty when it has no user there
	EtcdPrefix  string   `json:"etcd_prefix"`
}

// Times and sizes of invitations.
const (
	inviteLifetime = time.Hour
	maxInvite      = 7 * 24 * time.Hour
	maxInvitations = 1000
	idLength       = 16 // 80 bits
	secretLength   = 32 // 160 bits
)

// nodeRoles are the kinds of node that can be invited.
var nodeRoles = map[string]store.Role{"pop": store.NodePoP, "dns": store.NodeDNS}

// randomWord returns so many characters of five random bits each.
func randomWord(length int) string {
	random := make([]byte, length*5/8)
	rand.Read(random)
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").EncodeToString(random)
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Invite makes a token for one node. The errors are ErrInvalid, and store.ErrTooLarge when there are too many invitations.
func (r *Registrar) Invite(ctx context.Context, request InviteRequest) (*Invitation, error) {
	now := r.Now().UTC().Truncate(time.Second)
	if request.Kind == "" {
		request.Kind = "pop"
	}
	if request.Expires.IsZero() {
		request.Expires = now.Add(inviteLifetime)
	}
	role, known := nodeRoles[request.Kind]
	var faults []error
	if !known {
		faults = append(faults, fmt.Errorf("kind %.40q is not pop or dns", request.Kind))
	}
	if !request.Expires.After(now) || request.Expires.After(now.Add(maxInvite)) {
		faults = append(faults, fmt.Errorf("an invitation that ends %s: want one of at most %v from now", request.Expires.Format(time.RFC3339), maxInvite))
	}
	faults = append(faults, ca.CheckName(request.Name), checkURLs(r.URLs))
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.makeRoom(ctx, now); err != nil {
		return nil, err
	}
	err := store.AddUser(ctx, r.Etcd, r.Root, store.User{Role: role, Name: request.Name})
	if err != nil && !errors.Is(err, store.ErrPermission) {
		return nil, err
	}
	token := JoinToken{ID: randomWord(idLength), Secret: randomWord(secretLength), URLs: r.URLs, CA: ca.Hash(r.CA.Certificate())}
	stored := &invitation{
		Schema: topology.FirstSchema, Kind: request.Kind, Name: request.Name, SHA256: hashSecret(token.Secret),
		Created: now, Expires: request.Expires.UTC().Truncate(time.Second), Author: request.Author, Etcd: err == nil,
	}
	key := invitationKey(token.ID)
	written, err := r.commit(ctx, request.Author, "invite", store.UserName(role, request.Name),
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(r.key(key)), "=", 0)},
		clientv3.OpPut(r.key(key), string(topology.MarshalValue(stored))))
	if err == nil && !written {
		err = store.ErrConflict // two of 80 random bits are the same
	}
	if err != nil {
		return nil, err
	}
	return &Invitation{token.ID, stored.Name, stored.Kind, stored.Expires, stored.Etcd, token.String()}, nil
}

// Join lets an invited node in, once: its invitation is gone when it has its certificate. The errors are ErrInvalid and
// ErrNotAdmitted.
func (r *Registrar) Join(ctx context.Context, request JoinRequest) (*Joined, error) {
	public, err := ca.ReadRequest([]byte(request.Request))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !isWord(request.ID, idLength) || !isWord(request.Secret, secretLength) {
		return nil, fmt.Errorf("%w: want the id and the secret of a join token", ErrInvalid)
	}
	key := invitationKey(request.ID)
	invited := new(invitation)
	revision, err := r.load(ctx, key, invited)
	if err != nil {
		return nil, err
	}
	if invited.Schema == 0 { // compared all the same, so that time does not tell whether there is such an id
		invited.SHA256 = hashSecret(randomWord(secretLength))
	}
	if subtle.ConstantTimeCompare([]byte(hashSecret(request.Secret)), []byte(invited.SHA256)) != 1 {
		return nil, fmt.Errorf("%w: the token is not known, or has been used", ErrNotAdmitted)
	}
	now := r.Now()
	if !now.Before(invited.Expires) {
		return nil, fmt.Errorf("%w: the token has expired at %s", ErrNotAdmitted, invited.Expires.Format(time.RFC3339))
	}
	role, known := nodeRoles[invited.Kind]
	if !known { // who can write invitations into etcd gets no certificate of another kind by it
		return nil, fmt.Errorf("%w: kind %.40q is no node's", ErrNotAdmitted, invited.Kind)
	}
	if err := store.AddUser(ctx, r.Etcd, r.Root, store.User{Role: role, Name: invited.Name}); err == nil {
		invited.Etcd = true
	} else if !errors.Is(err, store.ErrPermission) {
		return nil, err
	}
	user := store.UserName(role, invited.Name)
	m := &member{Schema: topology.FirstSchema, Kind: invited.Kind, Name: invited.Name, Etcd: invited.Etcd, Joined: now.UTC().Truncate(time.Second)}
	joined, err := r.sign(m, public, now)
	if err != nil {
		return nil, err
	}
	written, err := r.commit(ctx, user, "join", user,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.key(key)), "=", revision)},
		clientv3.OpDelete(r.key(key)), clientv3.OpPut(r.key(memberKey(user)), string(topology.MarshalValue(m))))
	if err == nil && !written {
		err = fmt.Errorf("%w: the token has been used", ErrNotAdmitted)
	}
	if err != nil {
		return nil, err
	}
	return joined, nil
}

// sign issues a node's certificate and notes it in its record.
func (r *Registrar) sign(m *member, public *ecdsa.PublicKey, now time.Time) (*Joined, error) {
	cert, err := r.CA.Issue(ca.Request{Kind: ca.Kind(m.Kind), Name: m.Name, Public: public}, now)
	if err != nil {
		return nil, err
	}
	m.Serial, m.Expires = serialOf(cert), cert.NotAfter.UTC()
	joined := &Joined{
		Name: m.Name, Kind: m.Kind, Certificate: string(ca.EncodeCertificate(cert.Raw)), CA: string(r.CA.PEM()),
		Control: r.URLs, Relay: r.Relay, EtcdPrefix: r.key(""),
	}
	if len(joined.Relay) == 0 {
		joined.Relay = r.URLs
	}
	if m.Etcd {
		joined.Etcd = r.Endpoints
	}
	return joined, nil
}

// serialOf returns the serial number of a certificate in hex.
func serialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }
