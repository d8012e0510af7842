// Package world builds the worlds of simulations: a topology, clients by network, what the geo database knows of them, and the truth: the
// round-trip time between any network and any PoP, which the router never sees.
//
//	w, err := world.Build(scenario.World, 1)
//	us := w.RTT(network, pop)
//
// All is a pure function of the scenario's world and a seed, by hashes of numbers and names: it is the same on any machine and number of
// cores, in any order of questions, and what is true of a PoP stays so when others are added or left out. Times are whole microseconds,
// factors are fixed-point numbers, and sums are made of whole numbers; what needs floating point is rounded so coarsely that a last bit
// does not show.
//
// # Truth
//
// A provider is one network operator in one metro; some tens of networks (/24) belong to it. The way between a network and a PoP takes
//
//	(model × factor of provider and PoP's place + detour) × factor of network and PoP + access line
//
// The logarithms of the factors have three quarters and one quarter of the variance (0.11 squared by default): what was measured is the
// difference between operators' networks, and clients of one operator in one metro share most of their way. A detour (3 % of providers
// and places by default) adds 10 ms and an exponential number with mean 30 ms, 200 ms at most: an assumption, not a measurement. An
// operator's matrix stands in place of the model and of detours, where it has a pair; a single link of the scenario in place of all but the
// access line.
//
// A World is immutable and safe for concurrent use.
package world
