//go:build isochrone_next_schema

package topology

// SchemaVersion is that of a program that is newer by one, for tests of old and new nodes together. No other difference is in it.
const SchemaVersion = 2
