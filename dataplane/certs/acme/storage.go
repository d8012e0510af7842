package acme

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/caddyserver/certmagic"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
)

const (
	storeSection   = "acme/store/"
	lockSection    = "acme/locks/"
	requestTimeout = 5 * time.Second
	lastWord       = time.Second // for giving back a lock
	lockLife       = 15          // seconds until another may have the lock of one who has died
)

// Storage keeps what certmagic has to keep in etcd, each value sealed for its own identities alone. It implements certmagic.Storage, and is
// safe for concurrent use.
type Storage struct {
	Client     *clientv3.Client
	Root       string         // such as /isochrone/
	Identities []age.Identity // the role's key: seals and opens

	mu    sync.Mutex
	locks map[string]*lock
}

type lock struct{ session *concurrency.Session }

var (
	_ certmagic.Storage   = (*Storage)(nil)
	_ certmagic.TryLocker = (*Storage)(nil)
)

func (s *Storage) at(key string) string {
	return strings.TrimSuffix(s.Root, "/") + "/" + storeSection + strings.Trim(key, "/")
}

// Store implements certmagic.Storage.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	v, err := sealed.Seal(storeSection+key, append([]byte{0}, value...), sealed.RecipientsOf(s.Identities), "", time.Now()) // which may be empty
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := s.Client.Put(ctx, s.at(key), string(topology.MarshalValue(v))); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// Load implements certmagic.Storage. The error is fs.ErrNotExist when there is no such key.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	v, err := s.read(ctx, key)
	if err != nil {
		return nil, err
	}
	text, err := sealed.Open(storeSection+key, v, s.Identities)
	if err != nil {
		return nil, err
	}
	return text[1:], nil
}

func (s *Storage) read(ctx context.Context, key string) (*topology.Sealed, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.Client.Get(ctx, s.at(key))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	if len(response.Kvs) == 0 {
		return nil, fmt.Errorf("load %s: %w", key, fs.ErrNotExist)
	}
	v, faults := topology.ParseSealed("acme.store", response.Kvs[0].Value) // names of certmagic's are none of a secret
	if len(faults) > 0 {
		return nil, fmt.Errorf("load %s: %w", key, &topology.InvalidError{Faults: faults})
	}
	return v, nil
}

// Delete implements certmagic.Storage.
func (s *Storage) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.Client.Txn(ctx).Then(clientv3.OpDelete(s.at(key)), clientv3.OpDelete(s.at(key)+"/", clientv3.WithPrefix())).Commit()
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Exists implements certmagic.Storage.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage. The error is fs.ErrNotExist when nothing is below the path.
func (s *Storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	below, root := s.at(path)+"/", s.at("")
	if path == "" {
		below = root
	}
	response, err := s.Client.Get(ctx, below, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if len(response.Kvs) == 0 {
		return nil, fmt.Errorf("list %s: %w", path, fs.ErrNotExist)
	}
	var keys []string
	for _, kv := range response.Kvs {
		key := strings.TrimPrefix(string(kv.Key), root)
		above := strings.TrimPrefix(below, root)
		for at := len(above); at < len(key); at++ { // folders on the way
			if key[at] == '/' {
				keys = append(keys, key[:at])
				if !recursive {
					break
				}
			}
		}
		if recursive || !strings.Contains(key[len(above):], "/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Stat implements certmagic.Storage. The size is that of the sealed value.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if v, err := s.read(ctx, key); err == nil {
		return certmagic.KeyInfo{Key: key, Modified: v.Created, Size: int64(len(v.Age)), IsTerminal: true}, nil
	}
	if _, err := s.List(ctx, key, false); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key}, nil
}

// Lock implements certmagic.Locker: it waits until no other process has the lock, each of which loses it when it dies.
func (s *Storage) Lock(ctx context.Context, name string) error {
	return s.lock(ctx, name, func(m *concurrency.Mutex) error { return m.Lock(ctx) })
}

// TryLock implements certmagic.TryLocker.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	err := s.lock(ctx, name, func(m *concurrency.Mutex) error { return m.TryLock(ctx) })
	if err == concurrency.ErrLocked {
		return false, nil
	}
	return err == nil, err
}

func (s *Storage) lock(ctx context.Context, name string, take func(*concurrency.Mutex) error) error {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	lease, err := s.Client.Grant(asking, lockLife)
	cancel()
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	session, err := concurrency.NewSession(s.Client, concurrency.WithLease(lease.ID), concurrency.WithContext(context.WithoutCancel(ctx)), concurrency.WithTTL(lockLife))
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	mutex := concurrency.NewMutex(session, strings.TrimSuffix(s.Root, "/")+"/"+lockSection+strings.ReplaceAll(name, "/", "_"))
	if err := take(mutex); err != nil {
		_ = release(s.Client, session) // else the lease ends by itself
		if err == concurrency.ErrLocked {
			return err
		}
		return fmt.Errorf("lock %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks == nil {
		s.locks = map[string]*lock{}
	}
	s.locks[name] = &lock{session}
	return nil
}

// Unlock implements certmagic.Locker.
func (s *Storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	held := s.locks[name]
	delete(s.locks, name)
	s.mu.Unlock()
	if held == nil {
		return fmt.Errorf("unlock %s: it is not locked here", name)
	}
	if err := release(s.Client, held.session); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

// release gives a lease back, and with it the lock's key. It waits for etcd for a moment only, so that a process can end without it.
func release(client *clientv3.Client, session *concurrency.Session) error {
	session.Orphan()
	last, cancel := context.WithTimeout(context.Background(), lastWord)
	defer cancel()
	_, err := client.Revoke(last, session.Lease())
	return err
}
