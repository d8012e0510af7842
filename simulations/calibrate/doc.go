// Package calibrate fits the round-trip time model of router/rtt to measurements, and says by cross-validation how good it is: on regions
// that the fit has never seen. docs/rtt-model.md has the figures.
//
// The measurements are medians between 40 regions of one cloud (data/azure_rtt_p50.csv; data/SOURCES.md has where they come from).
package calibrate
