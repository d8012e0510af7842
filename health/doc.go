// Package health says who is well, and who says so. It turns observations of targets (PoPs, clusters, DNS nodes) into verdicts.
//
// Vantages are nodes that look at targets. Each has a Watcher, which keeps what only a sequence of observations tells: how often in a row a
// target failed, since when, whether it flaps. What comes of that is the vantage's Report. A verdict is a function without memory of the reports
// of the vantages that are alive (Judge), so that all nodes come to the same ones; of the verdicts before only those count of whom the reports
// say nothing.
//
// Who looks at what, and when, is a function of names alone (Assign, Next): each target is probed once a second in all, however many vantages
// there are. The first failure is a suspicion, and has all vantages of the target look at once.
//
// It is all pure: time comes in with the arguments. Package health/probe makes the observations, health/direct carries reports beside etcd. What
// a verdict means for a client's answer is the business of package router.
package health
