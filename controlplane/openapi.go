package controlplane

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

const openAPIPath = "/v1/openapi.json"

type object = map[string]any

// openAPI writes the document of the API (OpenAPI 3.1): its paths are the routes, its schemas those of the Go types.
func openAPI(table []route) []byte {
	s := &schemas{all: object{}}
	s.all["Problem"] = object{
		"type": "object", "required": []string{"type", "title", "status"}, "properties": object{
			"type": object{"type": "string"}, "title": object{"type": "string"}, "status": object{"type": "integer"}, "detail": object{"type": "string"},
			"faults":  object{"type": "array", "items": s.of(reflect.TypeFor[topology.Fault]()), "description": "all that is wrong with a topology"},
			"changed": object{"type": "array", "items": object{"type": "string"}, "description": "objects that somebody else has changed"},
		},
	}
	paths := object{}
	for _, r := range table {
		path, _ := paths[r.path].(object)
		if path == nil {
			path = object{}
			paths[r.path] = path
		}
		path[strings.ToLower(r.method)] = s.operation(&r)
	}
	document := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Isochrone control API", "version": "1",
			"description": "Errors are problem documents (RFC 9457). Lists of pages go on with after=NEXT.",
		},
		"security": []any{object{"token": []string{}}},
		"paths":    paths,
		"components": object{
			"schemas":         s.all,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
		},
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic("controlplane: " + err.Error()) // it consists of maps, lists and text
	}
	return append(text, '\n')
}

// operation describes a route.
func (s *schemas) operation(r *route) object {
	description := "Needs the role " + string(r.role) + "."
	o := object{"summary": r.summary, "description": description, "operationId": operationID(r), "responses": s.responses(r)}
	parameters := []any{}
	for i := range r.request.NumField() {
		field := r.request.Field(i)
		for _, in := range []string{"path", "query", "header"} {
			if name, ok := field.Tag.Lookup(in); ok {
				p := object{"name": name, "in": in, "schema": s.of(field.Type)}
				if in == "path" {
					p["required"] = true
				}
				if text := field.Tag.Get("doc"); text != "" {
					p["description"] = text
				}
				parameters = append(parameters, p)
			}
		}
		switch field.Tag.Get("body") {
		case "json":
			o["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": s.of(field.Type)}}}
		case "text":
			any := object{"schema": object{}}
			o["requestBody"] = object{"required": true, "content": object{"application/yaml": any, "application/json": any}}
		}
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	return o
}

func (s *schemas) responses(r *route) object {
	problems := object{"description": "What is wrong", "content": object{problem.ContentType: object{"schema": reference("Problem")}}}
	switch {
	case r.response == reflect.TypeFor[none]():
		return object{"204": object{"description": "Done"}, "default": problems}
	case r.path == eventsPath:
		text := "Events whose data are, of the kind status, a Status, and of topology, overrides, nodes and history, the store's revision"
		return object{"200": object{"description": text, "content": object{"text/event-stream": object{"schema": object{"type": "string"}}}}, "default": problems}
	}
	response := r.response
	if response.Kind() == reflect.Pointer {
		response = response.Elem() // which is never nil
	}
	return object{
		"200":     object{"description": "Done", "content": object{"application/json": object{"schema": s.of(response)}}},
		"default": problems,
	}
}

// operationID names a route, such as get_topology_kind_name.
func operationID(r *route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.path, "/v1"), func(c rune) bool { return strings.ContainsRune("/{}", c) })
	return strings.Join(append([]string{strings.ToLower(r.method)}, words...), "_")
}

// schemas are those of Go types, by name.
type schemas struct{ all object }

func reference(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// of returns the schema of a type as encoding/json writes it.
func (s *schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[topology.Object]():
		return object{}
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix]():
		return object{"type": "string"}
	case reflect.TypeFor[topology.Topology]():
		return object{"type": "object", "description": "as /v1/schema.json says"}
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return object{"anyOf": []any{s.of(t.Elem()), object{"type": "null"}}}
	case reflect.Struct:
		return s.structure(t)
	case reflect.Slice, reflect.Array:
		items := object{"type": []string{"array", "null"}, "items": s.of(t.Elem())}
		if t.Kind() == reflect.Array {
			items["type"], items["minItems"], items["maxItems"] = "array", t.Len(), t.Len()
		}
		return items
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": s.of(t.Elem())}
	case reflect.Interface:
		return object{}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	}
	if t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 {
		return object{"type": "integer"}
	}
	panic(fmt.Sprintf("controlplane: no schema for %v", t))
}

// structure names the schema of a struct, and returns a reference to it.
func (s *schemas) structure(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if pkg := t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]; pkg != "controlplane" && pkg != "topology" {
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	if s.all[name] != nil {
		return reference(name)
	}
	described := object{"type": "object"}
	s.all[name] = described // before its fields, which may be of the type itself
	properties := object{}
	s.fields(t, properties)
	described["properties"] = properties
	if !isRequest(name) {
		described["required"] = required(t)
	}
	described["additionalProperties"] = false
	return reference(name)
}

// isRequest reports whether clients send the type, who leave out what stands for a default.
func isRequest(name string) bool {
	return strings.HasSuffix(name, "Request") || slices.Contains([]string{"Override", "Sealed", "RotateBody"}, name)
}

func (s *schemas) fields(t reflect.Type, into object) {
	eachField(t, func(name string, _ bool, field reflect.StructField) { into[name] = s.of(field.Type) })
}

// required lists the fields that are always there.
func required(t reflect.Type) []string {
	names := []string{}
	eachField(t, func(name string, always bool, _ reflect.StructField) {
		if always {
			names = append(names, name)
		}
	})
	return names
}

// eachField calls each with the fields of a struct that encoding/json writes, those of embedded structs too.
func eachField(t reflect.Type, each func(name string, always bool, field reflect.StructField)) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		embedded := field.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case name == "-" || !field.IsExported() && !field.Anonymous:
		case field.Anonymous && name == "" && embedded.Kind() == reflect.Struct:
			eachField(embedded, each)
		default:
			if name == "" {
				name = field.Name
			}
			each(name, !strings.Contains(options, "omit"), field)
		}
	}
}
