package quota

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// EtcdStore is a Store in etcd, below the prefix quota/:
//
//	window        the number of the present window, and "rest" behind it if nothing is granted in it
//	g/NUMBER/KEY  what has been granted of a key in a window (record.go)
//	closed        written when a backup is restored
//
// Whoever opens a window deletes the records of those before the last one, in the same transaction.
//
// An etcd that lost its data lost the grants too, while PoPs go on with them. So that nothing is granted twice, nothing is granted of a key
// that etcd does not have, as before a backup is restored; and once closed is written, the number of the window before it is void: a new
// one begins, above all that there were, in which nothing is granted, and which lasts as long as any. Package topology/store writes
// closed when it restores a backup, where the rest of the prefix is left out.
type EtcdStore struct {
	client *clientv3.Client
	prefix string
	keys   string // prefix of the records of API keys
}

// NewEtcdStore returns the store under quota/ below a root such as /isochrone/.
func NewEtcdStore(client *clientv3.Client, root string) *EtcdStore {
	return &EtcdStore{client: client, prefix: root + "quota/", keys: root + "keys/"}
}

// mostTries is how often an exchange is tried while others write at the same time.
const mostTries = 8

// tooFar is by how much a number that a PoP claims to know may be above the wall clock, in seconds.
const tooFar = 3600

// readsOf is how many asks one transaction reads for: three keys each, and two.
const readsOf = 40

// records are keys in etcd; numbers of windows sort as they count.
func (s *EtcdStore) record(window int64, key string) string {
	return fmt.Sprintf("%sg/%012d/%s", s.prefix, window, key)
}

// window is the record of the present window.
type window struct {
	number           int64 // 0 when there is none that is good
	rest             bool
	revision, closed int64 // by which it is known whether this is still so
	lost             int64 // a number that is void
	wasClosed        bool
}

// Exchange implements Store.
func (s *EtcdStore) Exchange(ctx context.Context, r Request) (Answer, error) {
	if len(r.Asks) > MaxAsks {
		return Answer{}, fmt.Errorf("%d asks at once: at most %d are taken", len(r.Asks), MaxAsks)
	}
	w, err := s.now(ctx, r)
	if err != nil {
		return Answer{}, fmt.Errorf("the window of quota: %w", err)
	}
	answer := Answer{Window: w.number, Rest: w.rest, Grants: make([]Granted, len(r.Asks))}
	for from := 0; from < len(r.Asks); from += readsOf {
		to := min(from+readsOf, len(r.Asks))
		if err := s.grant(ctx, r.PoP, w, r.Asks[from:to], answer.Grants[from:to]); err != nil {
			return Answer{}, fmt.Errorf("grants of quota: %w", err) // they may have been made: then they are lost
		}
	}
	return answer, nil
}

// now returns the present window, after it has opened the next one if that is wanted.
func (s *EtcdStore) now(ctx context.Context, r Request) (window, error) {
	name, closed := s.prefix+"window", s.prefix+"closed"
	for range mostTries {
		read, err := s.client.Txn(ctx).Then(clientv3.OpGet(name), clientv3.OpGet(closed)).Commit()
		if err != nil {
			return window{}, err
		}
		w, err := readWindow(read.Responses[0].GetResponseRange().Kvs, read.Responses[1].GetResponseRange().Kvs)
		if err != nil {
			return window{}, err
		}
		next := w
		switch {
		case w.number == 0, r.Lost > w.number && r.Lost < wall().Unix()+tooFar: // the only use of a wall clock: it went on by 60 for each number that there was
			next.number = max(w.lost, w.number, r.Lost) + ahead + 1
			next.number = max(next.number, wall().Unix())
			next.rest = w.wasClosed || r.Lost > 0
		case r.Open == w.number:
			next.number, next.rest = w.number+1, false
		default:
			return w, nil
		}
		text := strconv.FormatInt(next.number, 10)
		if next.rest {
			text += " rest"
		}
		written, err := s.client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(name), "=", w.revision), clientv3.Compare(clientv3.ModRevision(closed), "=", w.closed),
		).Then(
			clientv3.OpPut(name, text),
			clientv3.OpDelete(s.record(0, ""), clientv3.WithRange(s.record(next.number-1, ""))),
		).Commit()
		if err != nil {
			return window{}, err
		}
		if written.Succeeded {
			next.revision = written.Header.Revision
			return next, nil
		}
	}
	return window{}, errBusy
}

var errBusy = errors.New("others write it all the time")

func readWindow(kvs, closed []*mvccpb.KeyValue) (w window, err error) {
	if len(closed) > 0 {
		w.closed, w.wasClosed = closed[0].ModRevision, true
	}
	if len(kvs) == 0 {
		return w, nil
	}
	text, rest := strings.CutSuffix(string(kvs[0].Value), " rest")
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < 1 || number > maxNumber {
		return w, fmt.Errorf("%.40q is no number of a window", kvs[0].Value)
	}
	w.revision = kvs[0].ModRevision
	if w.closed > w.revision {
		w.lost = number
		return w, nil
	}
	w.number, w.rest = number, rest
	return w, nil
}

// maxNumber bounds numbers, which have 12 digits in the names of records.
const maxNumber = 999_999_999_000

// grant makes grants for a PoP. Each is compared and swapped by itself, but all of them are made in the window.
func (s *EtcdStore) grant(ctx context.Context, pop string, w window, asks []Ask, grants []Granted) error {
	var open []int // which asks are to be answered yet
	for i, ask := range asks {
		if grants[i].Closed = w.rest || ask.Window < w.number || ask.Window > w.number+ahead; !grants[i].Closed {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return nil
	}
	var reads []clientv3.Op
	for _, i := range open {
		reads = append(reads, s.reads(asks[i])...)
	}
	result, err := s.client.Txn(ctx).Then(reads...).Commit()
	if err != nil {
		return err
	}
	read := result.Responses
	for range mostTries {
		var ops []clientv3.Op
		var asked []int
		for n, i := range open {
			op, granted, err := s.swap(pop, asks[i], read[3*n:3*n+3])
			if err != nil {
				return err
			}
			if grants[i] = granted; granted.Granted > 0 {
				ops, asked = append(ops, op), append(asked, i)
			}
		}
		if len(ops) == 0 {
			return nil
		}
		result, err := s.client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(s.prefix+"window"), "=", w.revision),
			clientv3.Compare(clientv3.ModRevision(s.prefix+"closed"), "=", w.closed),
		).Then(ops...).Commit()
		if err != nil {
			return err
		}
		if !result.Succeeded {
			for _, i := range asked {
				grants[i] = Granted{Busy: true} // another window has begun
			}
			return nil
		}
		read, open = nil, nil
		for n, i := range asked {
			if inner := result.Responses[n].GetResponseTxn(); !inner.Succeeded {
				grants[i] = Granted{Busy: true}
				open, read = append(open, i), append(read, inner.Responses...)
			}
		}
		if len(open) == 0 {
			return nil
		}
	}
	return nil
}

func (s *EtcdStore) reads(ask Ask) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpGet(s.record(ask.Window, ask.Key)), clientv3.OpGet(s.record(ask.Window-1, ask.Key)),
		clientv3.OpGet(s.keys+ask.Key, clientv3.WithCountOnly()),
	}
}

// swap returns what makes a grant, if nobody else has made one since the record was read.
func (s *EtcdStore) swap(pop string, ask Ask, read []*etcdserverpb.ResponseOp) (op clientv3.Op, granted Granted, err error) {
	if read[2].GetResponseRange().Count == 0 {
		return op, Granted{Closed: true}, nil
	}
	name, revision := s.record(ask.Window, ask.Key), int64(0)
	r := after(nil)
	if kvs := read[0].GetResponseRange().Kvs; len(kvs) > 0 {
		revision = kvs[0].ModRevision
		r, err = parseRecord(string(kvs[0].Value))
	} else if kvs := read[1].GetResponseRange().Kvs; len(kvs) > 0 {
		r, err = parseRecord(string(kvs[0].Value))
		if err == nil {
			r = after(r)
		}
	}
	if err != nil {
		return op, granted, fmt.Errorf("%s: %w", name, err)
	}
	granted = r.take(pop, ask.Limit, ask.Want)
	return clientv3.OpTxn(
		[]clientv3.Cmp{
			clientv3.Compare(clientv3.ModRevision(name), "=", revision),
			clientv3.Compare(clientv3.CreateRevision(s.keys+ask.Key), ">", 0), // there
		}, []clientv3.Op{clientv3.OpPut(name, r.String())}, s.reads(ask),
	), granted, nil
}
