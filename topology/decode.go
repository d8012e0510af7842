package topology

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/internal/spelling"
)

// MaxDocumentBytes bounds a document: etcd takes no request much larger than it.
const MaxDocumentBytes = 1_400_000

// maxDepth bounds how deep a document is nested; the deepest object needs five levels.
const maxDepth = 16

// decoder reads YAML strictly into Go values and collects all faults with path and line.
type decoder struct {
	faults []Fault
	lines  map[string]int // of each path
}

// decode reads one document into target, a pointer to a struct. JSON is YAML too.
func (d *decoder) decode(document []byte, path string, target any) {
	d.lines = map[string]int{}
	if len(document) > MaxDocumentBytes {
		d.fault(nil, path, "%d bytes are too many: at most %d fit one document; apply the objects in parts, and split a large zone into child zones", len(document), MaxDocumentBytes)
		return
	}
	if node := jsonNode(document); node != nil {
		d.value(node, path, reflect.ValueOf(target).Elem(), 0)
		return
	}
	reader := yaml.NewDecoder(bytes.NewReader(document))
	var node, more yaml.Node
	if err := reader.Decode(&node); errors.Is(err, io.EOF) {
		d.fault(nil, path, "is empty")
		return
	} else if err != nil {
		d.fault(nil, path, "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if reader.Decode(&more) == nil {
		d.fault(&more, path, "a second document follows: want one")
		return
	}
	d.value(node.Content[0], path, reflect.ValueOf(target).Elem(), 0)
}

func (d *decoder) fault(at *yaml.Node, path, format string, args ...any) {
	f := Fault{Path: path, Message: fmt.Sprintf(format, args...)}
	if at != nil {
		f.Line = at.Line
	}
	if f.Path == "" {
		f.Path = "document"
	}
	d.faults = append(d.faults, f)
}

// all returns the faults of reading a document, and those that were found by checking what was read. Of one that could not be read in
// full, only what it says is told to be wrong: what it seems to lack may stand in what could not be read.
func (d *decoder) all(checked []Fault) []Fault {
	if len(d.faults) > 0 {
		checked = slices.DeleteFunc(checked, func(f Fault) bool {
			_, said := d.lines[f.Path]
			return !said || slices.ContainsFunc(d.faults, func(unread Fault) bool { return strings.HasPrefix(f.Path, unread.Path) })
		})
	}
	return append(d.faults, d.locate(checked)...)
}

// locate gives faults that were found by path alone the line of the path, or of the nearest one around it.
func (d *decoder) locate(faults []Fault) []Fault {
	for i := range faults {
		for path := faults[i].Path; faults[i].Line == 0 && path != ""; {
			faults[i].Line = d.lines[path]
			cut := strings.LastIndexAny(path, ".[")
			path = path[:max(cut, 0)]
		}
	}
	return faults
}

func (d *decoder) value(node *yaml.Node, path string, target reflect.Value, depth int) {
	d.lines[path] = node.Line
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		d.fault(node, path, "anchors and aliases are not taken: write the value out")
		return
	case depth > maxDepth:
		d.fault(node, path, "nested too deep")
		return
	case node.Tag == "!!null":
		return
	}
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
		target = target.Elem()
	}
	if text, ok := target.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(node, path, text)
		return
	}
	if raw, ok := target.Addr().Interface().(*yaml.Node); ok { // read later, by whoever asked for it
		*raw = *node
		return
	}
	switch target.Kind() {
	case reflect.Struct:
		d.object(node, path, target, depth)
	case reflect.Map:
		d.mapping(node, path, target, depth)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			d.fault(node, path, "want a list")
			return
		}
		target.Set(reflect.MakeSlice(target.Type(), len(node.Content), len(node.Content)))
		for i, item := range node.Content {
			d.value(item, fmt.Sprintf("%s[%d]", path, i), target.Index(i), depth+1)
		}
	default:
		d.scalar(node, path, target)
	}
}

// object reads the fields of a struct, which are named by their yaml tags.
func (d *decoder) object(node *yaml.Node, path string, target reflect.Value, depth int) {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want an object: keys with values")
		return
	}
	fields := map[string]reflect.Value{}
	collectFields(target, fields)
	if schema, ok := fields["schema"]; ok && d.isTooNew(node, path, schema) {
		return
	}
	d.pairs(node, path, func(key *yaml.Node, value *yaml.Node, inner string) {
		if field, ok := fields[key.Value]; ok {
			d.value(value, inner, field, depth+1)
			return
		}
		d.fault(key, inner, "unknown key; %s", spelling.Suggest(key.Value, slices.Sorted(maps.Keys(fields))))
	})
}

// isTooNew reports whether an object has a schema that is newer than this program knows. Then nothing but that is read of it: its check
// tells the one fault.
func (d *decoder) isTooNew(node *yaml.Node, path string, target reflect.Value) bool {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if value := node.Content[i+1]; node.Content[i].Value == "schema" && value.Kind == yaml.ScalarNode {
			if schema, err := strconv.Atoi(value.Value); err == nil && IsTooNew(schema) {
				target.SetInt(int64(schema))
				d.lines[join(path, "schema")] = value.Line
				return true
			}
		}
	}
	return false
}

// collectFields finds the fields of a struct, and of those that stand in it inline, by the names of their yaml tags.
func collectFields(target reflect.Value, fields map[string]reflect.Value) {
	for i := range target.NumField() {
		if !target.Type().Field(i).IsExported() {
			continue
		}
		name, options, _ := strings.Cut(target.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "-" {
			continue
		}
		if options == "inline" {
			collectFields(target.Field(i), fields)
			continue
		}
		fields[name] = target.Field(i)
	}
}

func (d *decoder) mapping(node *yaml.Node, path string, target reflect.Value, depth int) {
	if node.Kind != yaml.MappingNode {
		d.fault(node, path, "want an object: names with values")
		return
	}
	target.Set(reflect.MakeMap(target.Type()))
	d.pairs(node, path, func(key, value *yaml.Node, inner string) {
		item := reflect.New(target.Type().Elem()).Elem()
		d.value(value, inner, item, depth+1)
		if item.Kind() == reflect.Pointer && item.IsNil() {
			d.fault(key, inner, "is empty")
			return
		}
		target.SetMapIndex(reflect.ValueOf(key.Value), item)
	})
}

// pairs calls each for every key of a mapping; a key that comes twice is a fault.
func (d *decoder) pairs(node *yaml.Node, path string, each func(key, value *yaml.Node, inner string)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		inner := join(path, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(key, path, "want plain text as a key")
		case seen[key.Value]:
			d.fault(key, inner, "stands here twice")
		default:
			seen[key.Value] = true
			each(key, node.Content[i+1], inner)
		}
	}
}

// join appends a key to a path; either may be empty.
func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}

func (d *decoder) text(node *yaml.Node, path string, target encoding.TextUnmarshaler) {
	if node.Kind != yaml.ScalarNode {
		d.fault(node, path, "want one value")
		return
	}
	if err := target.UnmarshalText([]byte(node.Value)); err != nil {
		switch target.(type) {
		case *netip.Addr:
			d.fault(node, path, "%q is not an IP address such as 203.0.113.1 or 2001:db8::1", node.Value)
		case *netip.Prefix:
			d.fault(node, path, "%q is not a prefix such as 203.0.113.0/24 or 2001:db8::/32", node.Value)
		case *Duration:
			d.fault(node, path, "%v", err)
		default:
			d.fault(node, path, "%q is not a time such as 2030-01-31T18:00:00Z", node.Value)
		}
	}
}

func (d *decoder) scalar(node *yaml.Node, path string, target reflect.Value) {
	if node.Kind != yaml.ScalarNode {
		d.fault(node, path, "want one value")
		return
	}
	var err error
	switch target.Kind() {
	case reflect.String:
		target.SetString(node.Value)
	case reflect.Bool:
		var v bool
		if v, err = strconv.ParseBool(node.Value); err != nil {
			d.fault(node, path, "%q is neither true nor false", node.Value)
		}
		target.SetBool(v)
	case reflect.Int, reflect.Int64:
		var v int64
		if v, err = strconv.ParseInt(node.Value, 10, target.Type().Bits()); err != nil {
			d.number(node, path, "a whole number", err)
		}
		target.SetInt(v)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var v uint64
		bits := target.Type().Bits()
		if v, err = strconv.ParseUint(node.Value, 10, bits); err != nil {
			d.number(node, path, fmt.Sprintf("a whole number in 0..%d", uint64(math.MaxUint64)>>(64-bits)), err)
		}
		target.SetUint(v)
	case reflect.Float64:
		var v float64
		if v, err = strconv.ParseFloat(node.Value, 64); err != nil {
			d.number(node, path, "a number", err)
		}
		target.SetFloat(v)
	default:
		panic("topology: the decoder does not know " + target.Type().String())
	}
}

func (d *decoder) number(node *yaml.Node, path, want string, err error) {
	if errors.Is(err, strconv.ErrRange) {
		d.fault(node, path, "%s is out of range: want %s", node.Value, want)
		return
	}
	d.fault(node, path, "%q is not %s", node.Value, want)
}
