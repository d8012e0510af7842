// Package store keeps a topology, its overrides and its keys in etcd, one object under one key, so that etcdctl shows and
// edits them:
//
//	/isochrone/topology/{zones,services,pops,clusters}/NAME   canonical YAML
//	/isochrone/overrides/NAME
//	/isochrone/keys/ID
//	/isochrone/secrets/NAME    sealed: see package topology/sealed
//	/isochrone/dnssec/ZONE     public keys and roll plan
//	/isochrone/acme/challenges/NAME  what DNS nodes answer while a certificate is got
//	/isochrone/history/NUMBER  what an edit of the topology changed, and what was there before: in the order of edits
//	/isochrone/audit/TIME      who did what, for edits of all kinds
//	/isochrone/nodes/KIND:NAME what a living process tells of itself, under a lease
//
// An edit is one transaction, refused when its result would be invalid or when somebody else was faster. Readers follow the
// store and get a consistent snapshot for every change; an invalid topology, put there by other means, never takes effect.
//
// A reader is a Follower: it makes snapshots of what a Feed tells, which is that of a Store, or a relay's (package relay).
package store
