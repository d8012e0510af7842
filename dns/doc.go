// Package dns is the GeoDNS server: authority for the zones of a topology, with answers for services that package router
// chooses for each client subnet (RFC 7871). It knows no geography.
//
// A question goes through parseQuery, which reads header, question and OPT in place, and respond, which builds the answer
// from a view. Both are pure; Server adds sockets, limits and counters.
package dns
