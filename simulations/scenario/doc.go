// Package scenario is the language of simulations: what a world is, which policies steer it, what happens in it, what is measured, and what must hold.
//
// A Scenario is read from a strict YAML file (Parse). An engine runs it for one policy and one seed and returns a Run: figures by
// name, distributions, and series. The engines are at several scales:
//
//   - packet: the real DNS server, health, dataplane and forwarder in virtual time (package packet);
//   - flow: millions of clients, the real tables and Decide, and queues by formula (package flow);
//   - analytic: round trips × RTT and queueing bounds, counted apart (no engine does that for whole worlds yet);
//   - placement: where PoPs save most (package placement).
//
// Check holds a Scenario's assertions against its runs. The package knows the words of all and runs none of them.
package scenario
