package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// invitation is one as it is stored.
type invitation struct {
	Schema  int       `yaml:"schema"`
	Kind    string    `yaml:"kind"`
	Name    string    `yaml:"name"`
	SHA256  string    `yaml:"sha256"` // of the secret, in lower-case hex
	Created time.Time `yaml:"created"`
	Expires time.Time `yaml:"expires"`
	Author  string    `yaml:"author,omitempty"`
	Etcd    bool      `yaml:"etcd,omitempty"` // the node has a user in etcd
}

// member is a node that has joined, as it is stored. Certificates are known by their serial numbers.
type member struct {
	Schema   int       `yaml:"schema"`
	Kind     string    `yaml:"kind"`
	Name     string    `yaml:"name"`
	Serial   string    `yaml:"serial"`             // of the newest certificate
	Previous string    `yaml:"previous,omitempty"` // of the one that was shown for it
	Joined   time.Time `yaml:"joined"`
	Expires  time.Time `yaml:"expires"` // of the newest certificate
	Etcd     bool      `yaml:"etcd,omitempty"`
}

const (
	invitations   = "tokens/join/"
	members       = "tokens/node/"
	recordTimeout = 5 * time.Second
)

func invitationKey(id string) string { return invitations + id }

func memberKey(user string) string { return members + user }

// key returns where something stands in etcd.
func (r *Registrar) key(below string) string { return strings.TrimSuffix(r.Root, "/") + "/" + below }

// load reads a record, and returns the revision at which it was written; of a missing one that is 0, and the record stays as it is.
func (r *Registrar) load(ctx context.Context, key string, record any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	response, err := r.Etcd.Get(ctx, r.key(key))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	if len(response.Kvs) == 0 {
		return 0, nil
	}
	if err := readRecord(response.Kvs[0].Value, record); err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return response.Kvs[0].ModRevision, nil
}

// readRecord reads a record as strictly as it was written.
func readRecord(text []byte, record any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if decoder.Decode(record) != nil {
		return errForeign
	}
	return nil
}

func readMember(text []byte) (*member, error) {
	m := new(member)
	return m, readRecord(text, m)
}

// errForeign is returned for what is no record of a registrar.
var errForeign = errors.New(`it is not as "isochrone pop invite" and "pop join" write it, or of a newer version`)

// commit writes, with an entry in the audit log, and reports whether the comparisons held.
func (r *Registrar) commit(ctx context.Context, author, action, object string, same []clientv3.Cmp, ops ...clientv3.Op) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	entry := store.AuditEntry{Schema: topology.FirstSchema, Author: author, Time: r.Now().UTC(), Action: action, Objects: []string{object}}
	at := r.key(fmt.Sprintf("audit/%020d-%08x", entry.Time.UnixNano(), mathrand.Uint32()))
	response, err := r.Etcd.Txn(ctx).If(same...).Then(append(ops, clientv3.OpPut(at, string(topology.MarshalValue(entry))))...).Commit()
	if err != nil {
		return false, fmt.Errorf("write to the store: %w", err)
	}
	return response.Succeeded, nil
}

// makeRoom deletes invitations that have expired. The error is store.ErrTooLarge when there are too many all the same.
func (r *Registrar) makeRoom(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	response, err := r.Etcd.Get(ctx, r.key(invitations), clientv3.WithPrefix(), clientv3.WithLimit(2*maxInvitations))
	if err != nil {
		return fmt.Errorf("read the invitations: %w", err)
	}
	open := len(response.Kvs)
	for _, kv := range response.Kvs {
		var i invitation
		if yaml.Unmarshal(kv.Value, &i) == nil && now.Before(i.Expires) {
			continue
		}
		if _, err := r.Etcd.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("delete an invitation that has expired: %w", err)
		}
		open--
	}
	if open >= maxInvitations {
		return fmt.Errorf("%w: %d nodes are invited and have not joined yet", store.ErrTooLarge, open)
	}
	return nil
}
