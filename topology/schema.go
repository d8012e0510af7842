package topology

import "fmt"

// FirstSchema is the schema of all that there was from the beginning. Programs write it into what they make, as long as it needs nothing
// newer, so that older nodes can read it: an emergency drain by a new program must reach them too.
const FirstSchema = 1

// IsTooNew reports whether an object's schema is newer than this program knows. Such an object is not read any further: what it has may
// have another meaning.
func IsTooNew(schema int) bool { return schema > SchemaVersion }

func checkSchema(path string, schema int) []Fault {
	switch {
	case schema == 0:
		return []Fault{{Path: path, Message: fmt.Sprintf("is missing: want schema: %d", FirstSchema)}}
	case IsTooNew(schema):
		return []Fault{{Path: path, Message: fmt.Sprintf("%d is newer than this program knows (%d): upgrade it", schema, SchemaVersion)}}
	case schema < 0:
		return []Fault{{Path: path, Message: fmt.Sprintf("%d is not a schema: want %d", schema, FirstSchema)}}
	}
	return nil
}

// schemaOf returns the schema of an object.
func schemaOf(o Object) int {
	switch o := o.(type) {
	case *Zone:
		return o.Schema
	case *Service:
		return o.Schema
	case *PoP:
		return o.Schema
	case *Cluster:
		return o.Schema
	}
	return 0
}

// NewestSchema returns the newest schema that an object of a topology has, 0 of an empty one. A node that does not know it cannot take
// this topology.
func NewestSchema(t *Topology) int {
	newest := 0
	for _, r := range t.Refs() {
		newest = max(newest, schemaOf(t.Object(r)))
	}
	return newest
}
