// Package simulations runs worlds in virtual time on the real code: the dataplane, its spool and forwarder, the reference
// cluster and the client of the intake work over a simulated network, whose round-trip times are given.
//
// A scenario says what the world is, what is measured in it, and what is claimed of it. SingaporeFrankfurt is the first: it
// holds the figures of a course on edge intake against what the code does. Nothing is computed that could be measured.
// Where a figure follows from the links by arithmetic, that stands beside it. The network is that of package packet: datagrams over quic-go's simnet,
// and a modelled TCP that real TLS and HTTP run over. Files are real, and take no virtual time.
package simulations
