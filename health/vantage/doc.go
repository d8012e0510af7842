// Package vantage is what a node does as one of those that look at targets: it probes those that are its own, when it is its turn, or at once when
// somebody suspects one; it says what it sees, hears what others see, and makes the verdicts that all come to.
//
// How a target is probed, and how reports travel, is not its business: both come with the Config. So the same code runs in a node, and in a world of
// hundreds of them in virtual time.
package vantage
