package topology

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The bounds of an intake's policy.
const (
	maxRequiredFields = 64
	maxContentTypes   = 32
	maxMethods        = 1000
	maxElsewhere      = 64
	maxJSONSchema     = 64 << 10 // octets
	maxReceiptKeys    = 16
)

func (c *checker) intake(in *Intake) {
	oneOf(c, "intake.ack", in.Ack, AckMemory, AckSpool, AckCluster)
	oneOf(c, "intake.idempotency_key", in.IdempotencyKey, IdempotencyOptional, IdempotencyRequired)
	within(c, "intake.max_body_bytes", in.MaxBodyBytes, 1, 16<<20)
	within(c, "intake.max_depth", in.MaxDepth, 1, 512)
	c.between("intake.dead_after", in.DeadAfter, time.Minute, 720*time.Hour)
	for i, field := range in.RequiredFields {
		if field == "" {
			c.fault(fmt.Sprintf("intake.required_fields[%d]", i), "is empty")
		}
	}
	c.atMost("intake.required_fields", len(in.RequiredFields), maxRequiredFields)
	c.contentTypes(in.ContentTypes)
	if in.JSONSchema != "" {
		if _, err := CompileJSONSchema(in.JSONSchema); err != nil {
			c.fault("intake.json_schema", "%v", err)
		}
	}
	if rpc := in.JSONRPC; rpc != nil {
		within(c, "intake.json_rpc.max_batch", rpc.MaxBatch, 0, 1000)
		c.atMost("intake.json_rpc.methods", len(rpc.Methods), maxMethods)
		for i, method := range rpc.Methods {
			if field := fmt.Sprintf("intake.json_rpc.methods[%d]", i); method == "" {
				c.fault(field, "is empty")
			} else if slices.Contains(rpc.Methods[:i], method) {
				c.fault(field, "%q stands here twice", method)
			}
		}
	}
	if sig := in.Signature; sig != nil {
		c.header("intake.signature.header", sig.Header)
		c.header("intake.signature.timestamp", sig.Timestamp)
		if strings.EqualFold(sig.Header, sig.Timestamp) {
			c.fault("intake.signature.timestamp", "%s is the header of the signature: want another one", sig.Timestamp)
		}
		c.between("intake.signature.tolerance", sig.Tolerance, time.Second, time.Hour)
	}
	c.elsewhere(in.Elsewhere)
}

func (c *checker) atMost(field string, n, most int) {
	if n > most {
		c.fault(field, "has %d entries, at most %d are taken", n, most)
	}
}

func (c *checker) between(field string, d Duration, low, high time.Duration) {
	if d < Duration(low) || d > Duration(high) {
		c.fault(field, "%v is not in %v..%v", d, Duration(low), Duration(high))
	}
}

// contentTypes checks media types such as application/json, and application/*+json, which stands for all that end so.
func (c *checker) contentTypes(types []string) {
	c.atMost("intake.content_types", len(types), maxContentTypes)
	for i, text := range types {
		field := fmt.Sprintf("intake.content_types[%d]", i)
		plain := strings.Replace(text, "/*+", "/x+", 1)
		media, parameters, err := mime.ParseMediaType(plain)
		if err != nil || media != plain || len(parameters) > 0 || !strings.Contains(media, "/") || strings.Contains(plain, "*") {
			c.fault(field, "%q is not a media type such as application/json or application/*+json, in lower case and without parameters", text)
		} else if slices.Contains(types[:i], text) {
			c.fault(field, "%q stands here twice", text)
		}
	}
}

// header checks the name of a header field.
func (c *checker) header(field, name string) {
	if len(name) > 64 || !isToken(name) || textproto.CanonicalMIMEHeaderKey(name) == "" {
		c.fault(field, "%q is not the name of a header field such as X-Signature", name)
	}
	switch http.CanonicalHeaderKey(name) {
	case "X-Api-Key", "Authorization", "Host", "Content-Length", "Content-Type", "Idempotency-Key":
		c.fault(field, "%s has another meaning", name)
	}
}

func isToken(text string) bool {
	return text != "" && strings.Trim(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

func (c *checker) elsewhere(places []Elsewhere) {
	c.atMost("intake.elsewhere", len(places), maxElsewhere)
	for i, e := range places {
		field := fmt.Sprintf("intake.elsewhere[%d]", i)
		path := strings.TrimSuffix(e.Path, "/*")
		switch {
		case !isPath(path) && (path != "" || e.Path != "/*"):
			c.fault(field+".path", "%q is not a path such as /ws or /stream/*", e.Path)
		case path == "/api/v1" || strings.HasPrefix(path, "/api/v1/"):
			c.fault(field+".path", "%q is the PoP's own", e.Path)
		case slices.ContainsFunc(places[:i], func(before Elsewhere) bool { return before.Path == e.Path }):
			c.fault(field+".path", "%q stands here twice", e.Path)
		}
		if to := strings.TrimSuffix(e.To, "/*"); e.To != "" && !isPath(to) {
			c.fault(field+".to", "%q is not a path such as /ws, or /stream/* to keep what is below", e.To)
		}
	}
}

func isPath(text string) bool {
	u, err := url.Parse(text)
	return err == nil && strings.HasPrefix(text, "/") && len(text) <= 256 && !strings.HasPrefix(text, "//") && u.EscapedPath() == text &&
		!strings.Contains(text, "*")
}

// public checks a cluster's URL for clients.
func (c *checker) public(text string) {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains([]string{"http", "https", "ws", "wss"}, u.Scheme) || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		c.fault("public", "%q is not a URL such as https://eu.example.net", text)
	}
}

// receiptKeys checks public keys of a PoP.
func (c *checker) receiptKeys(keys []string) {
	c.atMost("receipt_keys", len(keys), maxReceiptKeys)
	for i, text := range keys {
		field := fmt.Sprintf("receipt_keys[%d]", i)
		if _, err := ParseReceiptKey(text); err != nil {
			c.fault(field, "%v", err)
		} else if slices.Contains(keys[:i], text) {
			c.fault(field, "stands here twice")
		}
	}
}

// ParseReceiptKey reads an Ed25519 public key in unpadded base64url, 43 characters.
func ParseReceiptKey(text string) (ed25519.PublicKey, error) {
	key, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%.60q is not an Ed25519 public key in base64url, 43 characters", text)
	}
	return key, nil
}

// CompileJSONSchema compiles the JSON Schema of an intake. It must be complete in itself: nothing is loaded.
func CompileJSONSchema(text string) (*jsonschema.Schema, error) {
	if len(text) > maxJSONSchema {
		return nil, fmt.Errorf("has %d octets, at most %d are taken", len(text), maxJSONSchema)
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(schemaName, document); err != nil {
		return nil, fmt.Errorf("is not a JSON Schema: %w", err)
	}
	schema, err := compiler.Compile(schemaName)
	if err != nil {
		return nil, fmt.Errorf("is not a JSON Schema: %s", strings.ReplaceAll(err.Error(), schemaName, "it"))
	}
	WalkJSONSchema(schema, func(s *jsonschema.Schema) {
		if s.DynamicRef != nil || s.RecursiveRef != nil {
			err = errors.New("has $dynamicRef or $recursiveRef, whose cost cannot be bounded: want $ref")
		}
	})
	if err != nil {
		return nil, err
	}
	return schema, nil
}

const schemaName = "schema:intake"

type noLoader struct{}

// Load implements jsonschema.URLLoader: it refuses everything.
func (noLoader) Load(url string) (any, error) {
	return nil, errors.New("it refers to " + url + ", and nothing outside is loaded: put that below $defs")
}

// WalkJSONSchema visits a compiled schema and all that it refers to, each once.
func WalkJSONSchema(root *jsonschema.Schema, visit func(*jsonschema.Schema)) {
	seen := map[*jsonschema.Schema]bool{}
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			s, ok := v.Interface().(*jsonschema.Schema)
			if !ok || s == nil || seen[s] {
				return
			}
			seen[s] = true
			for i := range v.Elem().NumField() {
				if v.Type().Elem().Field(i).IsExported() {
					walk(v.Elem().Field(i))
				}
			}
			visit(s)
		case reflect.Interface:
			walk(v.Elem())
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Map:
			for entry := v.MapRange(); entry.Next(); {
				walk(entry.Value())
			}
		}
	}
	walk(reflect.ValueOf(root))
}
