//go:build !isochrone_next_schema

package topology

// SchemaVersion is the newest schema of topology objects, overrides and keys that this program knows.
const SchemaVersion = 1
