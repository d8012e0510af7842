// Package spill computes shares: what part of the clients of a catchment each PoP takes, so that no PoP gets more than it can do, none
// would after the loss of any one PoP where that is feasible, and round-trip times stay low.
//
//	world, err := spill.NewWorld(view, loads, demand)
//	next, report := spill.Plan(world, inForce, spill.Options{})
//
// It is pure and deterministic: equal inputs give equal shares. It has no clock and no I/O; who calls it, when, and where the shares
// are kept, is for others. How the shares act is router.Decide's matter; Flows tells what it comes to in expectation.
package spill
