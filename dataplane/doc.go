// Package dataplane is a point of presence: it terminates TLS, speaks HTTP/3 (and HTTP/2 and HTTP/1.1 on TCP), checks API
// key, quota and payload, answers 202 for what is safe on its disk, and forwards the exact bytes to the nearest healthy
// cluster until one acknowledges them.
//
// An intake goes through PoP.ServeHTTP (intake.go), which refuses or accepts, into the spool (package spool), and from there
// through the forwarder (forward.go). Package quota holds quotas; package cluster is a reference cluster.
package dataplane
