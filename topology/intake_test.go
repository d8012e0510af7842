package topology

import (
	"strings"
	"testing"
	"time"
)

// TestIntakeFaults has one fault at a time in an intake's policy.
func TestIntakeFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Intake)
		path   string // none for what is valid
		want   string
	}{
		{"all defaults", func(*Intake) {}, "", ""},
		{"memory", func(in *Intake) { in.Ack = AckMemory }, "", ""},
		{"another ack", func(in *Intake) { in.Ack = "disk" }, "ack", "disk"},
		{"content types", func(in *Intake) { in.ContentTypes = []string{"text/csv", "application/*+xml"} }, "", ""},
		{"any type", func(in *Intake) { in.ContentTypes = []string{"*/*"} }, "content_types[0]", "media type"},
		{"with parameters", func(in *Intake) { in.ContentTypes = []string{"text/csv; charset=utf-8"} }, "content_types[0]", "without parameters"},
		{"capitals", func(in *Intake) { in.ContentTypes = []string{"Text/csv"} }, "content_types[0]", "lower case"},
		{"no type", func(in *Intake) { in.ContentTypes = []string{} }, "", ""}, // the defaults
		{"a type twice", func(in *Intake) { in.ContentTypes = []string{"text/csv", "text/csv"} }, "content_types[1]", "twice"},
		{"depth", func(in *Intake) { in.MaxDepth = 513 }, "max_depth", "513"},
		{"a schema", func(in *Intake) { in.JSONSchema = `{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}` }, "", ""},
		{"no JSON", func(in *Intake) { in.JSONSchema = `{` }, "json_schema", "is not JSON"},
		{"no schema", func(in *Intake) { in.JSONSchema = `{"type": "thing"}` }, "json_schema", "not a JSON Schema"},
		{"a schema elsewhere", func(in *Intake) { in.JSONSchema = `{"$ref": "https://example.net/schema"}` }, "json_schema", "nothing outside is loaded"},
		{"a file", func(in *Intake) { in.JSONSchema = `{"$ref": "file:///etc/passwd"}` }, "json_schema", "nothing outside is loaded"},
		{"a long schema", func(in *Intake) { in.JSONSchema = strings.Repeat(" ", maxJSONSchema) + "{}" }, "json_schema", "65536"},
		{"a batch", func(in *Intake) { in.JSONRPC = &JSONRPC{MaxBatch: 1001} }, "json_rpc.max_batch", "1001"},
		{"a method twice", func(in *Intake) { in.JSONRPC = &JSONRPC{Methods: []string{"a", "a"}} }, "json_rpc.methods[1]", "twice"},
		{"signed", func(in *Intake) { in.Signature = &Signature{} }, "", ""},
		{"signed in the key", func(in *Intake) { in.Signature = &Signature{Header: "authorization"} }, "signature.header", "another meaning"},
		{"signed in two words", func(in *Intake) { in.Signature = &Signature{Header: "X Signature"} }, "signature.header", "not the name"},
		{"one header", func(in *Intake) { in.Signature = &Signature{Header: "X-Timestamp"} }, "signature.timestamp", "another one"},
		{"tolerance", func(in *Intake) { in.Signature = &Signature{Tolerance: Duration(2 * time.Hour)} }, "signature.tolerance", "2h"},
		{"dead soon", func(in *Intake) { in.DeadAfter = Duration(time.Second) }, "dead_after", "1s"},
		{"idempotency", func(in *Intake) { in.IdempotencyKey = "always" }, "idempotency_key", "always"},
		{"elsewhere", func(in *Intake) {
			in.Elsewhere = []Elsewhere{{Path: "/ws"}, {Path: "/stream/*", To: "/s/*"}, {Path: "/*"}}
		}, "", ""},
		{"our own path", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "/api/v1/ingest"}} }, "elsewhere[0].path", "own"},
		{"all our own paths", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "/api/v1/*"}} }, "elsewhere[0].path", "own"},
		{"no path", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "ws"}} }, "elsewhere[0].path", "such as"},
		{"another host", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "//example.net/ws"}} }, "elsewhere[0].path", "such as"},
		{"a path twice", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "/ws"}, {Path: "/ws"}} }, "elsewhere[1].path", "twice"},
		{"to a URL", func(in *Intake) { in.Elsewhere = []Elsewhere{{Path: "/ws", To: "https://example.net"}} }, "elsewhere[0].to", "such as"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := new(Service)
			test.change(&s.Intake)
			s.fillDefaults()
			c := &checker{path: "services.intake.example.net"}
			c.service("intake.example.net", s)
			switch {
			case test.path == "" && len(c.faults) > 0:
				t.Errorf("got %v, want no fault", c.faults)
			case test.path != "" && (len(c.faults) != 1 || c.faults[0].Path != "services.intake.example.net.intake."+test.path || !strings.Contains(c.faults[0].Message, test.want)):
				t.Errorf("got %v, want one of %s with %q", c.faults, test.path, test.want)
			}
		})
	}
}

func TestReceiptKey(t *testing.T) {
	if _, err := ParseReceiptKey("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAA+AAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := ParseReceiptKey(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
