package quota

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// EtcdStore is a Store in etcd: one record KEY/WINDOW under a prefix for each window of a key, with the sum of its grants in
// decimal. Whoever makes the first grant of a window removes the records of windows before the previous one; once a window
// has a record, nothing is granted any more in those.
//
// The records of an etcd that lost its data are lost too, while PoPs go on with what they were granted, and ask for more. So that no
// window is granted twice, nothing is granted of a key that etcd does not have, as before a backup is restored, nor in windows up to the
// one that the restoring has closed.
type EtcdStore struct {
	client *clientv3.Client
	prefix string
	keys   string // prefix of the records of API keys
}

// NewEtcdStore returns the store under quota/ below a root such as /isochrone/.
func NewEtcdStore(client *clientv3.Client, root string) *EtcdStore {
	return &EtcdStore{client: client, prefix: root + "quota/", keys: root + "keys/"}
}

// closed is a key below the prefix: a time in RFC 3339. Nothing is granted in the windows up to that one. Package topology/store writes
// it when it restores a backup, where the prefix is left out otherwise.
const closed = "closed"

// Grant implements Store.
func (s *EtcdStore) Grant(ctx context.Context, key string, window, limit, want int64) (int64, error) {
	record := s.record(key, window)
	newer, end := s.record(key, window+2), s.record(key, maxWindow)
	reads := []clientv3.Op{
		clientv3.OpGet(record), clientv3.OpGet(newer, clientv3.WithRange(end), clientv3.WithLimit(1)),
		clientv3.OpGet(s.keys+key, clientv3.WithCountOnly()), clientv3.OpGet(s.prefix + closed),
	}
	result, err := s.client.Txn(ctx).Then(reads...).Commit()
	if err != nil {
		return 0, fmt.Errorf("read the grants of key %s: %w", key, err)
	}
	for {
		kvs := result.Responses[0].GetResponseRange().Kvs
		isClosed, closedAt, err := closedFor(result.Responses[3].GetResponseRange().Kvs, window)
		if err != nil {
			return 0, fmt.Errorf("read %s%s: %w", s.prefix, closed, err)
		}
		if result.Responses[1].GetResponseRange().Count > 0 || result.Responses[2].GetResponseRange().Count == 0 || isClosed {
			return 0, nil
		}
		var sum, revision int64
		if len(kvs) > 0 {
			revision = kvs[0].ModRevision
			if sum, err = strconv.ParseInt(string(kvs[0].Value), 10, 64); err != nil {
				return 0, fmt.Errorf("read the grants of key %s: %w", key, err)
			}
		}
		granted := min(want, max(0, limit-sum))
		if granted == 0 {
			return 0, nil
		}
		ops := []clientv3.Op{clientv3.OpPut(record, strconv.FormatInt(sum+granted, 10))}
		if revision == 0 {
			ops = append(ops, clientv3.OpDelete(s.record(key, 0), clientv3.WithRange(s.record(key, window-1))))
		}
		result, err = s.client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(record), "=", revision),
			clientv3.Compare(clientv3.ModRevision(newer).WithRange(end), "=", 0), // none there
			clientv3.Compare(clientv3.CreateRevision(s.keys+key), ">", 0),        // there
			clientv3.Compare(clientv3.ModRevision(s.prefix+closed), "=", closedAt),
		).Then(ops...).Else(reads...).Commit()
		if err != nil {
			return 0, fmt.Errorf("grant for key %s: %w", key, err) // it may have been granted: then it is lost
		}
		if result.Succeeded {
			return granted, nil
		}
	}
}

// closedFor reports whether a window is closed, and the revision of what says so.
func closedFor(kvs []*mvccpb.KeyValue, window int64) (is bool, revision int64, err error) {
	if len(kvs) == 0 {
		return false, 0, nil
	}
	until, err := time.Parse(time.RFC3339, string(kvs[0].Value))
	return window <= until.Unix()/int64(Window/time.Second), kvs[0].ModRevision, err
}

const maxWindow = 999_999_999_999

// record is a key in etcd; numbers of windows sort as they count.
func (s *EtcdStore) record(key string, window int64) string {
	return fmt.Sprintf("%s%s/%012d", s.prefix, key, window)
}
