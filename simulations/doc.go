// Package simulations runs worlds in virtual time on the real code: the dataplane, its spool and forwarder, the reference
// cluster and the client of the intake work over a simulated network, whose round-trip times are given.
//
// A scenario says what the world is, what is measured in it, and what is claimed of it. SingaporeFrankfurt is the first: it
// holds the figures of a course on edge intake against what the code does. Nothing is computed that could be measured; where
// a figure follows from the links by arithmetic, that is printed beside it, counted apart.
//
// The network (Network) has sites, and links between sites with a round-trip time. Datagrams travel over quic-go's simnet.
// A TCP connection is a modelled stream: one round trip to open it, then ordered bytes after half a round trip. Neither loss,
// bandwidth nor congestion windows are modelled yet. Files are real, and take no virtual time.
package simulations
