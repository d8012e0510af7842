package store

import (
	"context"
	"math/rand/v2"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// ownStream returns a context whose watches have a stream to etcd for themselves. The watches of one client share one otherwise, and
// with it the answers to requests for progress: one that was asked for by others can come before what a new watch has to tell.
// A member that has no leader ends the watches.
func ownStream(ctx context.Context) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, "isochrone-stream", strconv.FormatUint(rand.Uint64(), 36))
	return clientv3.WithRequireLeader(ctx)
}
