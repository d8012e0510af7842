// Package spool is a PoP's durable queue of accepted envelopes that no cluster has acknowledged yet. Append returns when an
// envelope is on disk (fdatasync, shared by those who wait together); after a crash Open finds every envelope that had been
// appended and not settled.
//
//	queue, err := spool.Open(dir, spool.Options{})
//	err = queue.Append(&envelope, nil)    // on disk
//	item, err := queue.Next(ctx)          // another goroutine forwards it
//	queue.Acknowledge(item)
//
// On disk the queue is a sequence of segment files of records, each with a checksum: envelopes, and settlements of earlier
// ones. A segment is removed when it and all before it hold nothing that is still pending. What a cluster has refused for
// good is kept as a file in the folder dead.
//
// A settlement is written soon, but not waited for: after a crash an envelope may be forwarded again. Delivery is at least
// once.
package spool
