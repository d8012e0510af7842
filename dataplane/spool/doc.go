// Package spool is a PoP's durable queue of accepted envelopes that no cluster has acknowledged yet. Append returns when an
// envelope is on disk (fdatasync, shared by those who wait together); after a crash Open finds every envelope that had been
// appended and not settled. It also remembers for a while what became of each, for receipts and repeated requests.
//
//	queue, err := spool.Open(dir, spool.Options{})
//	err = queue.Append(&envelope, nil)    // on disk
//	item, err := queue.Next(ctx)          // another goroutine forwards it
//	queue.Delivered(item, "eu")
//
// On disk the queue is a sequence of segment files of records, each with a checksum: envelopes, and settlements of earlier
// ones. A segment is removed when it and all before it hold nothing that is still pending. What a cluster has refused for
// good is kept as a file in the folder dead; what became of settled envelopes is told by files in the folder outcomes.
//
// A settlement is written soon, but not waited for: after a crash an envelope may be forwarded again. Delivery is at least
// once.
package spool
