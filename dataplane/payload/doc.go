// Package payload checks payloads by a service's intake policy: their media type, their JSON, a JSON Schema, JSON-RPC, and signatures of
// webhooks. It is pure: it takes bytes and a time.
//
// A payload is read once by a scanner that allocates nothing (scan.go). It is stricter than most parsers, so that no two of them read
// different things from the same bytes: no name twice in an object, no bad UTF-8, no lone surrogate, no number that hardly anybody can
// hold. Only a JSON Schema needs more: then the decoded value is validated too (schema.go).
package payload
