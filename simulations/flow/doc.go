// Package flow is the flow-level engine of simulations: millions of clients in networks, the real tables and router.Decide, resolvers' caches,
// catchments, and load at PoPs, over days of virtual time.
//
// # What is counted
//
// The clients of one network (a /24) are alike: they have one line, one resolver, one way to each PoP. Of each network the engine
// keeps which part of its clients is connected to which PoP. A client posts at random times (Poisson); a part of its posts (Clients.Fresh) is on a
// new connection, for which it asks its resolver. All figures are expectations: nothing is drawn for single clients.
//
//   - A resolver that keeps an answer for its TTL, and is asked so many times a second, hits with chance λT/(1+λT), and what it hits is as old as any
//     number in 0..T. So what it answers follows from the decisions that held within the last T, in closed form (see caches.go); questions at our
//     servers are λ/(1+λT). With ECS there is a cache entry for each scope (RFC 7871, section 7.3), and a farm has that many caches.
//   - A PoP with more than it can do refuses the rest; the wait before is that of a queue of several servers (see queue.go).
//   - A PoP that is overloaded for some time falls over, until it is restarted.
//
// # Steps
//
// Time goes from one happening to the next (an event, a verdict, a route, a plan), and at most a step of the scenario. After a happening that sends
// clients elsewhere, steps are a second, or a twentieth of the TTL, until caches have forgotten.
//
// # Determinism
//
// Equal scenario, policy and seed give equal bytes, on any machine and number of cores: networks are shared out in shards of fixed size, sums are added
// up in the order of shards, and arithmetic is fenced against fused products (see exact.go).
package flow
