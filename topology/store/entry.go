package store

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Action is what kind of edit an entry of the history tells of.
type Action string

// The kinds of edit.
const (
	Applied    Action = "apply"
	RolledBack Action = "rollback" // the topology was made what it had been
	Reverted   Action = "revert"   // edits that made the topology invalid were taken back, perhaps with another on top
	Outside    Action = "outside"  // by other means than this package, such as etcdctl put
	Restored   Action = "restore"  // of a backup; it has no values
)

// OutsideAuthor is the author of edits by other means: etcd does not know who made them.
const OutsideAuthor = "outside"

// Entry is an edit of the topology as the history has it. It stands under history/ as YAML.
type Entry struct {
	Schema   int               `yaml:"schema"`
	Revision int64             `yaml:"revision,omitempty"` // at which the edit was made; where it is missing, that of the entry itself
	Since    int64             `yaml:"since,omitempty"`    // of a summary: the values before are those of this revision, and when they changed is not known
	Was      int64             `yaml:"was,omitempty"`      // the revision in the store that a backup was taken of
	Action   Action            `yaml:"action,omitempty"`
	Author   string            `yaml:"author"`
	Time     time.Time         `yaml:"time"` // of outside edits, when they were noticed
	Message  string            `yaml:"message,omitempty"`
	Invalid  bool              `yaml:"invalid,omitempty"` // it left an invalid topology
	Before   map[string]string `yaml:"before,omitempty"`  // values by KIND/NAME; of new objects there is none
	After    map[string]string `yaml:"after,omitempty"`   // of deleted objects there is none
	Packed   string            `yaml:"packed,omitempty"`  // Before and After, where they are large: see pack
	Omitted  []string          `yaml:"omitted,omitempty"` // objects whose values were too large even so
}

// packedAbove is the size of values above which an entry has them packed.
const packedAbove = 128 << 10

// maxUnpacked bounds what packed values may unpack to: what one transaction can have changed, twice, with room for escapes.
const maxUnpacked = 16 << 20

// Objects names what the edit changed.
func (e *Entry) Objects() []string {
	names := map[string]bool{}
	for name := range e.Before {
		names[name] = true
	}
	for name := range e.After {
		names[name] = true
	}
	for _, name := range e.Omitted {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Changes tells what the edit changed, field by field. Of values that are no valid objects, and of keys that are no objects',
// the whole text is told, with an empty path.
func (e *Entry) Changes() []topology.ObjectDiff {
	read := func(texts map[string]string) func(topology.Ref) topology.Object {
		return func(r topology.Ref) topology.Object {
			o, faults := topology.ParseObject(r, []byte(texts[r.String()]))
			if len(faults) > 0 {
				return nil
			}
			return o
		}
	}
	return changes(e.Before, e.After, read(e.Before), read(e.After))
}

// changes compares two sets of values by KIND/NAME; old and new return the objects that they are, or nil.
func changes(before, after map[string]string, old, new func(topology.Ref) topology.Object) []topology.ObjectDiff {
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var diffs []topology.ObjectDiff
	for _, name := range slices.SortedFunc(maps.Keys(names), compareObjects) {
		from, had := before[name]
		to, has := after[name]
		if had && has && from == to {
			continue
		}
		if d, ok := diffObject(name, had, has, old, new); ok {
			diffs = append(diffs, d)
			continue
		}
		d := topology.ObjectDiff{Object: name, Kind: "changed"} // in words that mean the same, or to or from what cannot be read
		switch {
		case !had:
			d.Kind = "added"
		case !has:
			d.Kind = "removed"
		}
		d.Fields = []topology.FieldDiff{{Path: "text", From: textOrNull(from, had), To: textOrNull(to, has)}}
		diffs = append(diffs, d)
	}
	return diffs
}

// diffObject compares an object field by field, if what there is of it can be read, and tells false if nothing differs so.
func diffObject(name string, had, has bool, old, new func(topology.Ref) topology.Object) (topology.ObjectDiff, bool) {
	r, err := topology.ParseRef(name)
	if err != nil {
		return topology.ObjectDiff{}, false
	}
	var from, to topology.Object
	if had {
		from = old(r)
	}
	if has {
		to = new(r)
	}
	if (from != nil) != had || (to != nil) != has {
		return topology.ObjectDiff{}, false
	}
	return topology.DiffObject(r, from, to)
}

func textOrNull(value string, is bool) json.RawMessage {
	if !is {
		return json.RawMessage("null")
	}
	quoted, _ := json.Marshal(value) // a string always can
	return quoted
}

// kindOrder is the order in which documents have the kinds.
var kindOrder = map[string]int{"zones": 1, "services": 2, "pops": 3, "clusters": 4}

func compareObjects(a, b string) int {
	kindA, _, _ := strings.Cut(a, "/")
	kindB, _, _ := strings.Cut(b, "/")
	if d := kindOrder[kindA] - kindOrder[kindB]; d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// marshal returns the entry as it is stored: with its values as they are, so that people can read them; packed where they are
// large, or where YAML would not keep them to the byte.
func (e *Entry) marshal() ([]byte, error) {
	size, clean := 0, true
	for _, values := range []map[string]string{e.Before, e.After} {
		for _, value := range values {
			size += len(value)
			clean = clean && utf8.ValidString(value)
		}
	}
	if size <= packedAbove && clean {
		text := topology.MarshalValue(e)
		var again Entry
		if err := yaml.Unmarshal(text, &again); err == nil && maps.Equal(again.Before, e.Before) && maps.Equal(again.After, e.After) {
			return text, nil
		}
	}
	small := *e
	small.Before, small.After = nil, nil
	var err error
	small.Packed, err = pack(e.Before, e.After)
	return topology.MarshalValue(&small), err
}

// unmarshalEntry reads an entry that was stored at a revision.
func unmarshalEntry(text []byte, revision int64) (*Entry, error) {
	e := new(Entry)
	if err := yaml.Unmarshal(text, e); err != nil {
		return nil, err
	}
	if e.Revision == 0 {
		e.Revision = revision
	}
	if e.Action == "" {
		e.Action = Applied
	}
	if e.Packed == "" {
		return e, nil
	}
	var err error
	e.Before, e.After, err = unpack(e.Packed)
	e.Packed = ""
	return e, err
}

// packed is what pack compresses. Of an object that had a value before, that is told by what it does not share with the one
// after at its head and tail: edits of large zones touch few lines.
type packed struct {
	After  map[string]blob  `json:"after"`
	Before map[string]piece `json:"before"`
}

type piece struct {
	Head int  `json:"head"` // bytes at the beginning that are those of the value after
	Tail int  `json:"tail"` // at the end
	Text blob `json:"text"`
}

// pack returns values as gzip in base64.
func pack(before, after map[string]string) (string, error) {
	p := packed{map[string]blob{}, map[string]piece{}}
	for name, value := range after {
		p.After[name] = blob(value)
	}
	for name, value := range before {
		head, tail := shared(value, after[name])
		p.Before[name] = piece{head, tail, blob(value[head : len(value)-tail])}
	}
	var text bytes.Buffer
	encoder := base64.NewEncoder(base64.StdEncoding, &text)
	zip, err := gzip.NewWriterLevel(encoder, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	err = errors.Join(json.NewEncoder(zip).Encode(p), zip.Close(), encoder.Close())
	return text.String(), err
}

// shared returns how many bytes two texts have in common at the beginning, and how many of the rest at the end.
func shared(a, b string) (head, tail int) {
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

func unpack(text string) (before, after map[string]string, err error) {
	zip, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))
	if err != nil {
		return nil, nil, fmt.Errorf("packed values: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(zip, maxUnpacked+1))
	if err != nil {
		return nil, nil, fmt.Errorf("packed values: %w", err)
	}
	if len(plain) > maxUnpacked {
		return nil, nil, fmt.Errorf("packed values: more than %d bytes", maxUnpacked)
	}
	var p packed
	if err := json.Unmarshal(plain, &p); err != nil {
		return nil, nil, fmt.Errorf("packed values: %w", err)
	}
	before, after = map[string]string{}, map[string]string{}
	for name, value := range p.After {
		after[name] = string(value)
	}
	for name, piece := range p.Before {
		value := after[name]
		if piece.Head < 0 || piece.Tail < 0 || piece.Head > len(value)-piece.Tail {
			return nil, nil, fmt.Errorf("packed values: %s shares %d and %d bytes with a value of %d", name, piece.Head, piece.Tail, len(value))
		}
		before[name] = value[:piece.Head] + string(piece.Text) + value[len(value)-piece.Tail:]
	}
	return before, after, nil
}

// blob is any bytes, in JSON as text where they are text, and in base64 where not.
type blob string

// MarshalJSON returns a string, or an object with base64.
func (b blob) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(b)) {
		return json.Marshal(string(b))
	}
	return json.Marshal(struct {
		Base64 []byte `json:"base64"`
	}{[]byte(b)})
}

// UnmarshalJSON reads what MarshalJSON returns.
func (b *blob) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte(`"`)) {
		return json.Unmarshal(text, (*string)(b))
	}
	var bytes struct {
		Base64 []byte `json:"base64"`
	}
	err := json.Unmarshal(text, &bytes)
	*b = blob(bytes.Base64)
	return err
}
