// Package quota admits requests of API keys, so that the PoPs together never admit more for a key in a window than its
// quota.
//
// Time is cut into numbered windows of one minute. A PoP takes grants of a tenth of the quota from a record that all PoPs
// share, by compare-and-swap, and admits requests from its grant without asking anybody. A grant is good for its window
// alone; what is not used of it is lost, at a restart too. So the sum that is admitted for a window is at most the quota,
// whoever crashes.
//
// A window is known by the PoP's own clock: PoPs whose clocks differ may work in neighbouring windows at the same time.
package quota
