// Package controlplane is how people and programs look at a running Isochrone: a typed service, its go-kit endpoints, and
// HTTP under /v1/. It answers from the view that the DNS server answers from, so that what it says is what clients get.
//
// It makes no decision: edits go through package topology/store, verdicts come from package health, and package router
// decides.
package controlplane
