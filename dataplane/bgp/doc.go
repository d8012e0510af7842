// Package bgp announces a node's prefixes to its routers, for as long as the node's own service works, and moves clients away before it
// ends. It is for PoPs and for DNS nodes alike.
//
// What is decided and what is done are apart. A Machine decides for one prefix, with no clock and no socket of its own: announce, drain
// (announce with GRACEFUL_SHUTDOWN, RFC 8326), or withdraw, with the reason. A Speaker asks it several times a second and tells the
// routers, by GoBGP inside this process: no API of it listens, and nobody can connect unless a peer is passive.
//
// A speaker originates its prefixes and nothing else. What routers send is refused, and never passed on to another router.
//
// It is not this package's job to find out whether the service works, or what other nodes announce: Config has functions that tell.
//
//	s, err := bgp.New(bgp.Config{Node: "pop:sin1", ASN: 64512, RouterID: id, Peers: peers, Prefixes: prefixes, Inputs: inputs})
//	...
//	err = s.Run(ctx) // drains when ctx ends, then withdraws
package bgp
