// Package quorum is a world of PoPs that judge each other's health, in virtual time: the watchers, schedules, reports, ledgers and
// verdicts of package health over a modelled network, with faults whose truth is known. It measures how long verdicts take, and counts
// those that are wrong.
//
// Modelled are: round-trip times by router/rtt between the PoPs' cities, with jitter and loss; a probe as the two round trips of a fresh
// HTTP/3 connection, with retransmissions as quic-go makes them; clocks that are wrong, and go wrong; reports that take 50..150 ms
// through etcd, and one way by datagram. One vantage of each world is bad in a way of its own, or one
// of the two ways of reports is cut (Bad). Verdicts are reached at four DNS nodes, each of its own reports.
package quorum
