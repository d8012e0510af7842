// Package forward delivers the envelopes of a PoP's spool to clusters: the exact bytes, at least once, to the nearest cluster that is
// well. It owns the connections to clusters and all that decides about them: order, limits, breakers, retries. It does not own the
// spool, which stays the place where envelopes are until a cluster has acknowledged them, and it knows nothing of clients.
//
// A puller takes envelopes from the spool and gives each to the queue of an endpoint. Each connection has two goroutines: one writes
// what it takes from that queue, as much at once as there is, and one reads answers and settles envelopes. One mutex guards all that is
// decided; nothing is done under it that waits. There is no goroutine, timer or context for an envelope.
//
//	f := forward.New(forward.Config{Name: "sin1", Snapshot: …, Verdicts: …, Model: …, Spool: queue, ClusterToken: …})
//	go f.Run(ctx)
//	f.Next("intake.example") // the cluster that is next for a service, as told to clients
package forward
