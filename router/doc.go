// Package router decides who goes where, and why. Decide is the one decision function of Isochrone: the DNS server,
// explain, what-if and the simulator all ask it.
//
// Its input is a View: a Table, compiled from topology, geo database and RTT model, and a State, which says what of the
// table is eligible right now. A table is large and replaced on an edit; a state is small and replaced whenever a verdict
// or an override changes.
//
// The package is pure: no I/O, no clock, no randomness. Its inputs come with interfaces and arguments; package router/geo
// reads geo databases, package router/rtt holds the model of round-trip times.
package router
