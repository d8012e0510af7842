// Package flagfile takes the values of a command's flags from a YAML file: a mapping whose keys are the flags' names. The
// file is read strictly, and what stands on the command line wins over it.
//
//	listen: [192.0.2.53:53, "[2001:db8::53]:53"]
//	rate-limit: 500
package flagfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/internal/spelling"
)

// maxBytes bounds a file.
const maxBytes = 1 << 20

// Error tells all faults of a file at once.
type Error struct {
	Path   string
	Faults []Fault
}

// Fault is one thing that is wrong in a file.
type Fault struct {
	Line    int    // from 1
	Key     string // empty when it is not about one key
	Message string // what is wrong and what would be right
}

// Error implements error: a line for each fault.
func (e *Error) Error() string {
	var lines []string
	for _, f := range e.Faults {
		where := fmt.Sprintf("%s:%d: ", e.Path, f.Line)
		if f.Key != "" {
			where += f.Key + ": "
		}
		lines = append(lines, where+f.Message)
	}
	return strings.Join(lines, "\n")
}

// Given are the values that flags have been given, by the flags' names.
type Given map[string][]string

// Of returns the values of the flags that have been given any.
func Of(flags *pflag.FlagSet) Given {
	given := Given{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			given[f.Name] = list.GetSlice()
		} else {
			given[f.Name] = []string{f.Value.String()}
		}
	})
	return given
}

// Apply gives the values to flags, such as those of a second command like the one they come from.
func (g Given) Apply(flags *pflag.FlagSet) error {
	for name, values := range g {
		if err := set(flags.Lookup(name), values); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	return nil
}

// set gives a flag a value, or several if it is a list.
func set(f *pflag.Flag, values []string) error {
	f.Changed = true
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return f.Value.Set(values[0])
}

// Read gives the values of a file to flags. Those that have been given a value before keep it; their value in the file is
// checked all the same. But names flags that cannot stand in a file. The error is an *Error if the file could be read; some
// flags may then have been given their value.
func Read(path string, flags *pflag.FlagSet, but ...string) error {
	given := Of(flags)
	document, err := read(path)
	if err != nil {
		return err
	}
	r := &reader{flags: flags, Error: Error{Path: path}}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !slices.Contains(but, f.Name) {
			r.known = append(r.known, f.Name)
		}
	})
	r.document(document)
	if len(r.Faults) > 0 {
		return &r.Error
	}
	return given.Apply(flags)
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	document, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err == nil && len(document) > maxBytes {
		err = fmt.Errorf("%s: more than %d bytes are no file of flags", path, maxBytes)
	}
	return document, err
}

type reader struct {
	Error
	flags *pflag.FlagSet
	known []string // names of the flags that may stand in the file
}

func (r *reader) fault(at *yaml.Node, key, format string, args ...any) {
	r.Faults = append(r.Faults, Fault{Line: max(at.Line, 1), Key: key, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) document(text []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var node, more yaml.Node
	if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
		return // nothing but comments
	} else if err != nil {
		message := strings.TrimPrefix(err.Error(), "yaml: ")
		if n, _ := fmt.Sscanf(message, "line %d: ", &node.Line); n == 1 {
			_, message, _ = strings.Cut(message, ": ")
		}
		r.fault(&node, "", "not YAML: %s", message)
		return
	}
	if decoder.Decode(&more) == nil {
		r.fault(&more, "", "a second document follows: want one")
	}
	top := node.Content[0]
	if top.Kind != yaml.MappingNode {
		r.fault(top, "", "want names of flags with their values, such as listen: [192.0.2.53:53]")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			r.fault(key, "", "want the name of a flag")
		case !slices.Contains(r.known, key.Value):
			r.fault(key, key.Value, "unknown key; %s", spelling.Suggest(key.Value, r.known))
		case seen[key.Value]:
			r.fault(key, key.Value, "stands here twice")
		default:
			seen[key.Value] = true
			r.value(r.flags.Lookup(key.Value), value)
		}
	}
}

// value gives a flag what stands in the file for it.
func (r *reader) value(f *pflag.Flag, node *yaml.Node) {
	if _, isList := f.Value.(pflag.SliceValue); isList && node.Kind == yaml.SequenceNode {
		r.list(f, node)
		return
	}
	if !r.scalar(f, node) {
		return
	}
	if err := set(f, []string{node.Value}); err != nil {
		r.fault(node, f.Name, "%s", explain(f, node.Value, err))
	}
}

// list gives a flag several values. Each is tried alone first, so that all faults are found, each with its line.
func (r *reader) list(f *pflag.Flag, node *yaml.Node) {
	values := []string{}
	for _, item := range node.Content {
		if !r.scalar(f, item) {
			continue
		}
		if err := set(f, []string{item.Value}); err != nil {
			r.fault(item, f.Name, "%s", explain(f, item.Value, err))
			continue
		}
		values = append(values, item.Value)
	}
	if err := set(f, values); err != nil {
		r.fault(node, f.Name, "%v", err)
	}
}

// scalar reports whether a node is one value, and tells the fault otherwise.
func (r *reader) scalar(f *pflag.Flag, node *yaml.Node) bool {
	_, isList := f.Value.(pflag.SliceValue)
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		r.fault(node, f.Name, "anchors and aliases are not taken: write the value out")
	case node.Kind != yaml.ScalarNode && isList:
		r.fault(node, f.Name, "want a list of values, such as [a, b]")
	case node.Kind != yaml.ScalarNode:
		r.fault(node, f.Name, "want one value")
	case node.Tag == "!!null":
		r.fault(node, f.Name, "has no value; remove it, or write \"\" for an empty text")
	default:
		return true
	}
	return false
}

// explain says what would be right for a flag. Flags of a command's own types say it themselves.
func explain(f *pflag.Flag, value string, err error) string {
	want := ""
	switch f.Value.Type() {
	case "bool":
		want = "true or false"
	case "int", "int64", "int32", "uint", "uint16", "uint32", "uint64":
		want = "a whole number that fits"
	case "float64":
		want = "a number"
	case "duration":
		want = "a duration such as 30s, 1m or 2h30m"
	default:
		return err.Error()
	}
	return fmt.Sprintf("%q is not %s", value, want)
}
