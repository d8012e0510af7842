// Package dns is the GeoDNS server: authority for the zones of a topology, signed, with answers for services that package router
// chooses for each client subnet (RFC 7871). It knows no geography and no health.
//
// A question is read in place by one parser (question.go). The fast path (quick.go) finds its answer among those that are packed
// already, and patches id, flags and scope; it allocates nothing and takes no lock. What it lacks, or leaves alone, is answered by the
// full path (message.go, respond.go), which builds a message of package miekg/dns, and keeps it packed for the fast path where that
// is possible (answers.go). Both read one store of signatures (package dnssec), so their bytes are the same, and a fuzz test holds them
// to each other.
//
//	router.View ──► serving (serving.go): view + index + settings, swapped as one by Publish and Configure
//	index (zone.go): zone → name → record sets; made anew for a new topology or new keys only, by Prepare before the view is published
//
// On Linux a thread of its own serves each UDP socket, a batch of datagrams at a time (udp_linux.go); what is for the full path waits in
// a bounded queue (run.go). TCP, TLS and HTTPS (stream.go, https.go) share one bounded table of connections (connections.go).
//
//	server := dns.New(dns.Config{Log: log})
//	server.Configure(settings)
//	live.Prepare(server.Prepare)
//	live.Follow(server.Publish)
//	err := server.Run(ctx, sockets)
package dns
