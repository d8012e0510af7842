// Package rtt predicts the round-trip time between any two places on earth, near enough to rank PoPs by it: light in
// fibre over a map of where the world's cables run. docs/rtt-model.md describes the model, its data and how good it is
// (median error 5.1 ms over 780 measured pairs, cross-validated).
//
//	ms := rtt.Default().Milliseconds(singapore, virginia)
//
// The package is pure; a Model is immutable and safe for concurrent use.
package rtt
