// Package health says who is well, and who says so. It turns observations of targets (PoPs and clusters) into verdicts.
//
// It is a pure state machine: time comes in with the observations. Package health/probe makes the observations. What a
// verdict means for a client's answer is the business of package router.
package health
