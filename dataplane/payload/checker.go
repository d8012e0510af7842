package payload

import (
	"fmt"
	"mime"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/isochrone/isochrone/topology"
)

// Checker checks the payloads of one service. It is immutable and may be used concurrently.
type Checker struct {
	types    []string // as the policy has them
	required []string
	maxDepth int
	rpc      *topology.JSONRPC
	schema   *jsonschema.Schema // nil for none
	places   []topology.Elsewhere
	scanners sync.Pool
}

// Compile makes the checker of a policy with its defaults filled in. An error means that its JSON Schema is none, which validation of the
// topology does not let through.
func Compile(in *topology.Intake) (*Checker, error) {
	c := &Checker{types: in.ContentTypes, required: in.RequiredFields, maxDepth: in.MaxDepth, rpc: in.JSONRPC}
	if in.JSONSchema != "" {
		schema, err := topology.CompileJSONSchema(in.JSONSchema)
		if err != nil {
			return nil, fmt.Errorf("json_schema %w", err)
		}
		c.schema = schema
	}
	c.places = slices.Clone(in.Elsewhere)
	slices.SortStableFunc(c.places, func(a, b topology.Elsewhere) int { return len(b.Path) - len(a.Path) }) // the longest first
	c.scanners.New = func() any { return new(scanner) }
	return c, nil
}

// Type reports why a Content-Type is not taken (RFC 9110 section 8.3, RFC 6839 section 3.1).
func (c *Checker) Type(contentType string) error {
	for _, known := range c.types { // as nearly everybody sends it
		if contentType == known {
			return nil
		}
	}
	if len(contentType) <= 256 {
		media, parameters, err := mime.ParseMediaType(contentType)
		charset, given := parameters["charset"]
		if err == nil && slices.ContainsFunc(c.types, func(of string) bool { return matches(of, media) }) && (!given || strings.EqualFold(charset, "utf-8")) {
			return nil
		}
	}
	return fmt.Errorf("the payload's Content-Type is one of %s, in UTF-8", strings.Join(c.types, ", "))
}

// matches reports whether a media type is of a kind, which may be application/*+json.
func matches(kind, media string) bool {
	before, after, found := strings.Cut(kind, "*")
	if !found {
		return media == kind
	}
	return len(media) > len(before)+len(after) && strings.HasPrefix(media, before) && strings.HasSuffix(media, after)
}

// Check reports why a payload is not as the policy wants it. The error is an *Error, or one of the JSON Schema.
func (c *Checker) Check(body []byte) error {
	if err := c.Syntax(body); err != nil {
		return err
	}
	if c.schema != nil {
		return c.conforms(body)
	}
	return nil
}

// Syntax reports why a payload is not JSON of the form that the policy wants, apart from its JSON Schema.
func (c *Checker) Syntax(body []byte) error {
	s := c.scanners.Get().(*scanner)
	defer c.scanners.Put(s)
	return s.scan(body, c)
}

var ofProbes = func() *Checker {
	c, err := Compile(&topology.Intake{MaxDepth: 32})
	if err != nil {
		panic(err) // there is no schema
	}
	return c
}()

// Probe reports why the payload of a probe is not a JSON object.
func Probe(body []byte) error { return ofProbes.Syntax(body) }

// Place returns where a path belongs that PoPs do not serve: a path at a cluster.
func (c *Checker) Place(path string) (to string, ok bool) {
	for _, place := range c.places {
		below, isTree := strings.CutSuffix(place.Path, "/*")
		rest, found := strings.CutPrefix(path, below)
		switch {
		case !isTree && path == place.Path:
			if to := place.To; to != "" {
				return strings.TrimSuffix(to, "/*"), true
			}
			return path, true
		case isTree && found && (rest == "" || rest[0] == '/'):
			if place.To == "" {
				return path, true
			}
			if keep, ok := strings.CutSuffix(place.To, "/*"); ok {
				return keep + rest, true
			}
			return place.To, true
		}
	}
	return "", false
}
