// Package direct carries the reports of vantages from node to node by UDP, beside etcd: when etcd is away, DNS nodes still hear who is well,
// and when it is not, they hear it sooner.
//
// Each node has a socket of its own for it, and a key (Ed25519) that it makes when it starts; the public part and the address stand in its
// report in etcd, which nobody else may write. Every datagram is signed. A node sends its report when it changes, and each second a few octets
// that say that it lives and which report is its newest; who has missed that one asks for it. Parts of large reports are put together by
// the receiver, one report of a sender at a time, so memory is bounded by the number of nodes that are known.
//
// Replayed datagrams are told by their numbers: incarnation and sequence only grow. A node that has just started takes what it hears first;
// until the true sender's next sign of life, a second at most, that may be an old one.
package direct
