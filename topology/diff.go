package topology

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
)

// ObjectDiff is what differs of one object.
type ObjectDiff struct {
	Object string      `json:"object"` // such as pops/sin1
	Kind   string      `json:"kind"`   // added, changed, removed
	Fields []FieldDiff `json:"fields,omitempty"`
}

// FieldDiff is what differs of one field. Values are in JSON; that of a missing field is null. Of a zone's records each line that
// was added or removed is one, with the path records.
type FieldDiff struct {
	Path string          `json:"path"` // such as location.lat
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

// Diff returns what differs between two topologies, in the order of documents. Either may be nil, which is an empty one.
func Diff(before, after *Topology) []ObjectDiff {
	var diffs []ObjectDiff
	for _, r := range union(before, after).Refs() {
		if d, ok := DiffObject(r, before.objectOrNil(r), after.objectOrNil(r)); ok {
			diffs = append(diffs, d)
		}
	}
	return diffs
}

// DiffObject returns what differs between two values of one object, either of which may be nil, and false if nothing does.
func DiffObject(r Ref, before, after Object) (ObjectDiff, bool) {
	d := ObjectDiff{Object: r.String(), Kind: "changed"}
	switch {
	case before == nil && after == nil:
		return ObjectDiff{}, false
	case before == nil:
		d.Kind = "added"
		return d, true
	case after == nil:
		d.Kind = "removed"
		return d, true
	}
	if before == after {
		return ObjectDiff{}, false
	}
	oldZone, ok := before.(*Zone)
	newZone, both := after.(*Zone)
	if ok && both { // the lines are many, and better compared as such
		x, y := *oldZone, *newZone
		x.Records, y.Records = nil, nil
		before, after = &x, &y
		d.Fields = diffLines(oldZone.Records, newZone.Records)
	}
	d.Fields = append(diffValues("", plain(before), plain(after)), d.Fields...)
	return d, len(d.Fields) > 0
}

// TextDiff returns the difference between two topologies as a unified diff of their canonical YAML, empty where there is none.
func TextDiff(before, after *Topology, nameBefore, nameAfter string) string {
	text := diff.Diff(nameBefore, before.orEmpty().Marshal(), nameAfter, after.orEmpty().Marshal())
	_, text, _ = bytes.Cut(text, []byte("\n")) // the line that names the command
	return string(text)
}

func (t *Topology) orEmpty() *Topology {
	if t == nil {
		return &Topology{}
	}
	return t
}

func (t *Topology) objectOrNil(r Ref) Object { return t.orEmpty().Object(r) }

// union has the objects of both.
func union(a, b *Topology) *Topology {
	both := a.orEmpty().With(nil, nil)
	for _, r := range b.orEmpty().Refs() {
		both.put(r, b.Object(r))
	}
	return both
}

// plain returns a value as JSON has it: maps, lists, text, numbers as they are written, true, false and nil.
func plain(value any) any {
	var result any
	decoder := json.NewDecoder(bytes.NewReader(inJSON(value)))
	decoder.UseNumber()
	if err := decoder.Decode(&result); err != nil {
		panic("topology: " + err.Error()) // it was written by inJSON
	}
	return result
}

func inJSON(value any) json.RawMessage {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("topology: " + err.Error()) // only types of this package and what plain makes of them come here
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// diffValues compares field by field; lists of plain values are compared as a whole, other lists item by item.
func diffValues(path string, from, to any) []FieldDiff {
	if reflect.DeepEqual(from, to) {
		return nil
	}
	switch x := from.(type) {
	case map[string]any:
		y, ok := to.(map[string]any)
		if !ok {
			break
		}
		names := maps.Clone(x)
		maps.Copy(names, y)
		var diffs []FieldDiff
		for _, name := range slices.Sorted(maps.Keys(names)) {
			diffs = append(diffs, diffValues(join(path, name), x[name], y[name])...)
		}
		return diffs
	case []any:
		y, ok := to.([]any)
		if !ok || !ofObjects(x) || !ofObjects(y) {
			break
		}
		var diffs []FieldDiff
		for i := range max(len(x), len(y)) {
			diffs = append(diffs, diffValues(fmt.Sprintf("%s[%d]", path, i), at(x, i), at(y, i))...)
		}
		return diffs
	}
	return []FieldDiff{{path, inJSON(from), inJSON(to)}}
}

func ofObjects(list []any) bool {
	return !slices.ContainsFunc(list, func(item any) bool {
		_, ok := item.(map[string]any)
		return !ok
	})
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// diffLines tells which lines were removed and added, in their order; where the same lines have another order, which ones now
// stand at other places.
func diffLines(from, to []string) []FieldDiff {
	if slices.Equal(from, to) {
		return nil
	}
	count := map[string]int{} // how much more often a line stands in from than in to
	for _, line := range from {
		count[line]++
	}
	for _, line := range to {
		count[line]--
	}
	var diffs []FieldDiff
	missing := inJSON(nil)
	for _, line := range from {
		if count[line] > 0 {
			count[line]--
			diffs = append(diffs, FieldDiff{"records", inJSON(line), missing})
		}
	}
	for _, line := range to {
		if count[line] < 0 {
			count[line]++
			diffs = append(diffs, FieldDiff{"records", missing, inJSON(line)})
		}
	}
	if len(diffs) > 0 {
		return diffs
	}
	for i := range to {
		if from[i] != to[i] {
			diffs = append(diffs, FieldDiff{fmt.Sprintf("records[%d]", i), inJSON(from[i]), inJSON(to[i])})
		}
	}
	return diffs
}
