package leader

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// termKey is by which the context of a task knows its term.
type termKey struct{}

// Guard returns what is true in etcd as long as the leader leads whose task has this context: a transaction that is conditional on it cannot write
// what a later leader has to. Where there is no election, it is nothing.
func Guard(ctx context.Context) []clientv3.Cmp {
	if guard, ok := ctx.Value(termKey{}).(clientv3.Cmp); ok {
		return []clientv3.Cmp{guard}
	}
	return nil
}
