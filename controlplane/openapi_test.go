package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is what of an OpenAPI document this test looks at.
type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct{ Name, In string }
		Responses   map[string]struct {
			Content map[string]json.RawMessage
		}
		Description string
	}
}

// schemaAt returns the schema of the document at a JSON pointer.
func schemaAt(t *testing.T, text []byte, pointer string) *jsonschema.Schema {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("openapi.json", value); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("openapi.json#" + pointer)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestOpenAPI holds the document to the routes, and real answers to its schemas.
func TestOpenAPI(t *testing.T) {
	w := begin(t, nil)
	w.drain("sin1")
	made, err := w.client(Operator).CreateKey(t.Context(), KeyRequest{Note: "a key", From: []string{"192.0.2.0/24"}})
	if err != nil {
		t.Fatal(err)
	}
	text := w.ask("", "GET", openAPIPath, "").body
	var d document
	if err := json.Unmarshal(text, &d); err != nil || !strings.HasPrefix(d.OpenAPI, "3.1") {
		t.Fatalf("%v: %s", err, text)
	}
	described, ids := map[string]bool{}, map[string]bool{}
	for path, operations := range d.Paths {
		for method, operation := range operations {
			described[strings.ToUpper(method)+" "+path] = true
			if ids[operation.OperationID] {
				t.Errorf("two operations are called %s", operation.OperationID)
			}
			ids[operation.OperationID] = true
			for _, part := range strings.Split(path, "/") {
				if name, ok := strings.CutPrefix(part, "{"); ok && !strings.Contains(fmt.Sprint(operation.Parameters), strings.TrimSuffix(name, "}")) {
					t.Errorf("%s %s: the parameter %s is not described", method, path, name)
				}
			}
		}
	}
	for _, r := range append(routes(w.service), eventsRoute()) {
		if !described[r.method+" "+r.path] {
			t.Errorf("%s %s is not described", r.method, r.path)
		}
		delete(described, r.method+" "+r.path)
		if !strings.Contains(d.Paths[r.path][strings.ToLower(r.method)].Description, string(r.role)) {
			t.Errorf("%s %s: the role is not described", r.method, r.path)
		}
	}
	if len(described) > 0 {
		t.Errorf("described, and no routes: %v", described)
	}

	// Real answers, of every route that reads and of some that write.
	revision := fmt.Sprint(w.service.Snapshot().Good)
	asked := map[string]bool{}
	for _, request := range []struct{ method, route, path, body string }{
		{"GET", "/v1/status", "/v1/status", ""},
		{"GET", "/v1/explain", "/v1/explain?service=intake.isochrone.test&client=192.0.2.7", ""},
		{"GET", "/v1/map", "/v1/map?by=rtt", ""},
		{"GET", "/v1/nodes", "/v1/nodes", ""},
		{"GET", "/v1/safe", "/v1/safe?pop=fra1", ""},
		{"GET", "/v1/whoami", "/v1/whoami", ""},
		{"GET", "/v1/audit", "/v1/audit?limit=1", ""},
		{"GET", "/v1/topology", "/v1/topology", ""},
		{"GET", "/v1/topology/{kind}/{name}", "/v1/topology/services/intake.isochrone.test", ""},
		{"GET", "/v1/history", "/v1/history", ""},
		{"GET", "/v1/history/{revision}", "/v1/history/" + revision, ""},
		{"GET", "/v1/diff", "/v1/diff?from=" + revision + "&effect=1", ""},
		{"GET", "/v1/doctor", "/v1/doctor", ""},
		{"GET", "/v1/overrides", "/v1/overrides", ""},
		{"GET", "/v1/keys", "/v1/keys", ""},
		{"GET", "/v1/secrets", "/v1/secrets", ""},
		{"GET", "/v1/tokens", "/v1/tokens", ""},
		{"POST", "/v1/changes", "/v1/changes", `{"delete":["pops/jnb1"]}`},
		{"POST", "/v1/rollback", "/v1/rollback", `{"revision":` + revision + `,"dry_run":true}`},
		{"POST", "/v1/keys", "/v1/keys", `{"note":"another"}`},
		{"POST", "/v1/keys/{id}/rotate", "/v1/keys/" + made.ID + "/rotate", `{"overlap":"24h"}`},
		{"POST", "/v1/tokens", "/v1/tokens", `{"name":"Carol","role":"viewer"}`},
		{"DELETE", "/v1/overrides/{name}", "/v1/overrides/drain-sin1", ""},
	} {
		a := w.ask(Admin, request.method, request.path, request.body)
		if a.code != http.StatusOK {
			t.Errorf("%s %s: got %d %s", request.method, request.path, a.code, a.body)
			continue
		}
		asked[request.method+" "+request.route] = true
		pointer := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(request.route)
		schema := schemaAt(t, text, "/paths/"+pointer+"/"+strings.ToLower(request.method)+"/responses/200/content/application~1json/schema")
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", request.path, err, a.body)
		}
	}
	for _, r := range routes(w.service) {
		if r.method == "GET" && !asked[r.method+" "+r.path] {
			t.Errorf("GET %s was not tried", r.path)
		}
	}
	refused := w.ask(Admin, "PUT", "/v1/topology/pops/x", "schema: 1")
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(refused.body))
	if err != nil {
		t.Fatal(err)
	}
	if err := schemaAt(t, text, "/components/schemas/Problem").Validate(value); err != nil {
		t.Error(err)
	}
}

// TestSchemaTellsTheTruth makes sure that the schemas refuse something.
func TestSchemaTellsTheTruth(t *testing.T) {
	text := openAPI(routes(&Service{}))
	schema := schemaAt(t, text, "/components/schemas/Identity")
	for value, valid := range map[string]bool{`{"name":"a","role":"viewer"}`: true, `{"name":"a"}`: false, `{"name":1,"role":"viewer"}`: false, `{"name":"a","role":"viewer","x":1}`: false} {
		decoded, err := jsonschema.UnmarshalJSON(strings.NewReader(value))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(decoded); (err == nil) != valid {
			t.Errorf("%s: got %v", value, err)
		}
	}
}
