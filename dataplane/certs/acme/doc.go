// Package acme gets certificates for services from an ACME server (RFC 8555) and renews them at two thirds of their lifetime. It is a task
// of the leader of the control planes. Names are proved by DNS-01 through our own zones: the challenge stands in the store, from where DNS
// nodes answer it (topology.Challenge). What it has is in the store too, below acme/, sealed: the account's key, and certificates with
// theirs. Each certificate is handed to PoPs as a sealed secret, whose name begins with Prefix.
//
// The protocol, its state and the pauses between attempts are certmagic's. Package certs is the PoP's side.
package acme
