//go:build !linux

package sockets

import "net/netip"

// manyQueues says whether an address can have several UDP sockets, among which the system shares the packets out.
const manyQueues = false

func shareAddress(int) error { return nil }

func tune(int, netip.Addr) error { return nil }
