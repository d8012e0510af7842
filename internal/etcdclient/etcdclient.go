// Package etcdclient connects to etcd so that the loss of one member goes unnoticed. Clients of etcd send their requests to all members
// in turn; one that is cut off from the others takes requests like any other, and leaves them without an answer.
package etcdclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// tryTimeout is how long one member may take to answer a read, before another one is asked.
	tryTimeout = 1500 * time.Millisecond
	// pause is between tries.
	pause = 50 * time.Millisecond
)

// reconnecting is how connections are tried again. Without it the pauses would grow to two minutes, so that a drain would wait for so long
// once etcd is back after an outage.
var reconnecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// ErrUnknownOutcome is returned for a write that was not answered: it may have been made, or be made still, or not. It wraps
// what went wrong.
var ErrUnknownOutcome = errors.New("etcd has not answered: the write may have been made or not")

// ErrFull is returned for a write that etcd refuses because its database has reached its quota. It wraps what etcd said.
var ErrFull = errors.New("etcd is full and takes no writes: make room as docs/operations.md says (compact, defragment, then etcdctl alarm disarm)")

// ErrAway is returned for a read that no member could answer. It wraps what went wrong.
var ErrAway = errors.New("etcd does not answer")

// Connect returns a client that says nothing on the terminal, finds out when a connection is dead, has members that are cut off refuse
// what they cannot do, and then asks another one: again and again until the context of the request ends.
func Connect(config clientv3.Config) (*clientv3.Client, error) {
	config.DialTimeout, config.Logger = 5*time.Second, zap.NewNop()
	config.DialKeepAliveTime, config.DialKeepAliveTimeout = 10*time.Second, 5*time.Second
	config.DialOptions = append(config.DialOptions, grpc.WithConnectParams(reconnecting))
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	client.KV = persistent{client.KV}
	return client, nil
}

// persistent is a KV whose requests outlive the loss of a member.
type persistent struct{ clientv3.KV }

func (p persistent) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return read(ctx, func(ctx context.Context) (*clientv3.GetResponse, error) { return p.KV.Get(ctx, key, opts...) })
}

func (p persistent) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return write(ctx, func(ctx context.Context) (*clientv3.PutResponse, error) { return p.KV.Put(ctx, key, value, opts...) })
}

func (p persistent) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	return write(ctx, func(ctx context.Context) (*clientv3.DeleteResponse, error) { return p.KV.Delete(ctx, key, opts...) })
}

func (p persistent) Compact(ctx context.Context, revision int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	return write(ctx, func(ctx context.Context) (*clientv3.CompactResponse, error) {
		return p.KV.Compact(ctx, revision, opts...)
	})
}

func (p persistent) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	if reads(op) {
		return read(ctx, func(ctx context.Context) (clientv3.OpResponse, error) { return p.KV.Do(ctx, op) })
	}
	return write(ctx, func(ctx context.Context) (clientv3.OpResponse, error) { return p.KV.Do(ctx, op) })
}

func (p persistent) Txn(ctx context.Context) clientv3.Txn {
	return &transaction{ctx: ctx, kv: p.KV}
}

// transaction collects what one request is made of, each time that it is sent.
type transaction struct {
	ctx       context.Context
	kv        clientv3.KV
	compares  []clientv3.Cmp
	then, els []clientv3.Op
}

func (t *transaction) If(compares ...clientv3.Cmp) clientv3.Txn {
	t.compares = append(t.compares, compares...)
	return t
}

func (t *transaction) Then(ops ...clientv3.Op) clientv3.Txn {
	t.then = append(t.then, ops...)
	return t
}

func (t *transaction) Else(ops ...clientv3.Op) clientv3.Txn {
	t.els = append(t.els, ops...)
	return t
}

func (t *transaction) Commit() (*clientv3.TxnResponse, error) {
	send := func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return t.kv.Txn(ctx).If(t.compares...).Then(t.then...).Else(t.els...).Commit()
	}
	for _, ops := range [][]clientv3.Op{t.then, t.els} {
		for _, op := range ops {
			if !reads(op) {
				return write(t.ctx, send)
			}
		}
	}
	return read(t.ctx, send)
}

// reads reports whether an operation changes nothing.
func reads(op clientv3.Op) bool {
	if !op.IsTxn() {
		return op.IsGet()
	}
	_, then, els := op.Txn()
	for _, inner := range append(then, els...) {
		if !reads(inner) {
			return false
		}
	}
	return true
}

// read asks again, and so another member, when one does not answer.
func read[T any](ctx context.Context, send func(context.Context) (T, error)) (T, error) {
	for {
		trying, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), tryTimeout)
		response, err := send(trying)
		expired := trying.Err() != nil
		cancel()
		if err == nil || !expired && !unanswered(err) {
			return response, err
		}
		if !wait(ctx) {
			if unanswered(err) {
				err = errors.Join(ErrAway, err)
			}
			return response, err
		}
	}
}

// write sends again only what has certainly not been made.
func write[T any](ctx context.Context, send func(context.Context) (T, error)) (T, error) {
	for {
		response, err := send(clientv3.WithRequireLeader(ctx))
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrNoLeader) {
			if errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) {
				err = fmt.Errorf("%w: %w", ErrFull, err)
			} else if err != nil && (ctx.Err() != nil || unanswered(err)) {
				err = errors.Join(ErrUnknownOutcome, err)
			}
			return response, err
		}
		if !wait(ctx) {
			return response, err
		}
	}
}

// wait waits a moment, and reports false when time is up.
func wait(ctx context.Context) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}

// unanswered reports whether a member has given up, or is gone.
func unanswered(err error) bool {
	known := rpctypes.Error(err)
	for _, one := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeoutWaitAppliedIndex, rpctypes.ErrLeaderChanged, rpctypes.ErrStopped,
	} {
		if errors.Is(known, one) {
			return true
		}
	}
	return status.Code(err) == codes.Unavailable
}
