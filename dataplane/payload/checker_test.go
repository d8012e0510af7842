package payload

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/isochrone/isochrone/topology"
)

// policy returns the defaults, changed.
func policy(change func(*topology.Intake)) *topology.Intake {
	in := &topology.Intake{
		MaxBodyBytes: 65536, MaxDepth: 32, ContentTypes: []string{"application/json", "application/*+json"},
		RequiredFields: []string{"hash", "sender", "amount"},
	}
	if change != nil {
		change(in)
	}
	return in
}

func compile(t testing.TB, change func(*topology.Intake)) *Checker {
	t.Helper()
	c, err := Compile(policy(change))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func with(schema string) func(*topology.Intake) {
	return func(in *topology.Intake) { in.JSONSchema, in.RequiredFields = schema, nil }
}

func many(n int, last string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"field%d":%d,`, i, i)
	}
	return b.String() + last + "}"
}

// TestCheckAnswers has the answers that docs/intake.md defines.
func TestCheckAnswers(t *testing.T) {
	free := compile(t, func(in *topology.Intake) { in.RequiredFields = []string{} })
	for _, test := range []struct{ name, body, want string }{
		{"an object", `{}`, ""},
		{"white space around", " \r\n\t{ \"a\" : [ 1 , 2 ] } \n", ""},
		{"no-break space", "\u00a0{}", "no JSON value begins so"},
		{"vertical tab", "\v{}", "no JSON value begins so"},
		{"nothing", "", "empty"},
		{"only white space", " \n", "ends here"},
		{"a byte order mark", "\ufeff{}", "byte order mark"},
		{"two values", "{} {}", "something follows"},
		{"NUL behind", "{}\x00", "something follows"},
		{"an array", `[]`, "not an object"},
		{"a text", `"a"`, "not an object"},
		{"null", `null`, "not an object"},
		{"a comment", `{/**/}`, "name in quotes"},
		{"trailing comma", `{"a":1,}`, "name in quotes"},
		{"trailing comma of an array", `{"a":[1,]}`, "no JSON value begins so"},
		{"no colon", `{"a" 1}`, "want :"},
		{"single quotes", `{'a':1}`, "name in quotes"},
		{"no end", `{"a":1`, "want , or }"},
		{"no end of an array", `{"a":[1`, "want , or ]"},
		{"no end of a text", `{"a":"`, "closing quote"},
		{"twice", `{"a":1,"b":2,"a":3}`, "twice"},
		{"twice, escaped", `{"a":1,"\u0061":3}`, "twice"},
		{"twice, both escaped", `{"\u00e9\n":1,"é\u000A":3}`, "twice"},
		{"twice, below", `{"b":[{"c":{"a":1,"a":3}}]}`, "(/b/0/c/a)"},
		{"once in each object", `{"a":{"a":{"a":1}},"b":{"a":[{"a":1},{"a":2}]}}`, ""},
		{"other case", `{"a":1,"A":2}`, ""},
		{"empty name", `{"":1}`, ""},
		{"empty name twice", `{"":1,"":2}`, "twice"},
		{"other normal form", `{"é":1,"e` + "\u0301" + `":2}`, ""},
		{"many names", many(1000, `"x":1`), ""},
		{"many names, one twice", many(1000, `"field7":1`), "twice"},
		{"many names, one twice and escaped", many(1000, `"f\u0069eld999":1`), "twice"},
		{"many names inside many", many(40, `"a":`+many(100, `"b":`+many(17, `"c":1`))+`,"d":1`), ""},
		{"many names inside many, one twice after", many(40, `"a":`+many(100, `"b":1`)+`,"field3":1`), "twice"},
		{"more names than are taken", many(65536, `"a":1`), "more than 65536"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"overlong", "{\"a\":\"\xc0\xaf\"}", "UTF-8"},
		{"a surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", "UTF-8"},
		{"cut UTF-8", "{\"a\":\"\xe2\x82\"}", "UTF-8"},
		{"UTF-8 outside of a text", "{\xc3\xa9:1}", "name in quotes"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "no JSON value begins so"},
		{"all lengths of UTF-8", `{"é€😀":"aé€😀` + "\uffff\ufffd\x7f" + `"}`, ""},
		{"a pair of surrogates", `{"a":"\ud83d\ude00"}`, ""},
		{"a high surrogate alone", `{"a":"\ud83d"}`, "surrogate"},
		{"a low surrogate alone", `{"a":"\ude00"}`, "surrogate"},
		{"surrogates the wrong way round", `{"a":"\ude00\ud83d"}`, "surrogate"},
		{"a high surrogate and a letter", `{"a":"\ud83d\u0061"}`, "surrogate"},
		{"a surrogate in a name", `{"\ud83d":1}`, "surrogate"},
		{"escaped NUL", `{"a":"\u0000"}`, ""},
		{"NUL", "{\"a\":\"\x00\"}", "control character"},
		{"a line feed in a text", "{\"a\":\"\n\"}", "control character"},
		{"a late control character", "{\"a\":\"abcdefghijk\x1f\"}", "control character"},
		{"all escapes", `{"a":"\"\\\/\b\f\n\r\t\u00Ff"}`, ""},
		{"no such escape", `{"a":"\x41"}`, "no such escape"},
		{"three digits", `{"a":"\u004"}`, "four hexadecimal digits"},
		{"an escape at the end", `{"a":"\`, "ends in an escape"},
		{"deep enough", strings.Repeat(`{"a":`, 31) + "[]" + strings.Repeat("}", 31), ""},
		{"too deep", strings.Repeat(`{"a":`, 32) + "[]" + strings.Repeat("}", 32), "deeper than 32"},
		{"very deep", `{"a":` + strings.Repeat("[", 1<<20), "deeper than 32"},
		{"numbers", `{"a":[0,-0,-0.0,1,-1,10,1.5,1e5,1E+5,1e-05,1E400,-1e-999,12345678901234567890]}`, ""},
		{"65 digits with the exponent's", `{"a":` + strings.Repeat("9", 62) + `.1e00}`, "more than 64 digits"},
		{"64 digits with the exponent's", `{"a":` + strings.Repeat("9", 62) + `.1e1}`, ""},
		{"64 digits alone", `{"a":` + strings.Repeat("9", 64) + `}`, ""},
		{"65 digits", `{"a":` + strings.Repeat("9", 65) + `}`, "more than 64 digits"},
		{"a huge exponent", `{"a":1e1000}`, "exponent"},
		{"a huger exponent", `{"a":1e-99999999999999999999999999}`, "exponent"},
		{"leading zero", `{"a":01}`, "leading zeros"},
		{"a plus", `{"a":+1}`, "no JSON value begins so"},
		{"a point first", `{"a":.1}`, "no JSON value begins so"},
		{"a point last", `{"a":1.}`, "after the point"},
		{"no exponent", `{"a":1e}`, "exponent"},
		{"a minus alone", `{"a":-}`, "want a digit"},
		{"NaN", `{"a":NaN}`, "no JSON value begins so"},
		{"-Infinity", `{"a":-Infinity}`, "want a digit"},
		{"hexadecimal", `{"a":0x1}`, "want , or }"},
		{"True", `{"a":True}`, "no JSON value begins so"},
		{"tru", `{"a":tru}`, "want true"},
		{"nullx", `{"a":nullx}`, "want , or }"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := free.Check([]byte(test.body))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%.80q: got %v, want %q", test.body, err, test.want)
			}
		})
	}
}

func TestRequiredFields(t *testing.T) {
	for _, test := range []struct {
		name   string
		fields []string
		body   string
		want   string
	}{
		{"all", nil, `{"hash":"a","sender":"b","amount":1}`, ""},
		{"escaped", nil, `{"h\u0061sh":"a","sender":"b","amount":false}`, ""},
		{"one lacks", nil, `{"hash":"a","amount":1}`, "lacks sender; required are hash, sender, amount"},
		{"null", nil, `{"hash":"a","sender":null,"amount":1}`, "lacks sender; required"},
		{"other case", nil, `{"Hash":"a","sender":"b","amount":1}`, "lacks hash"},
		{"only below", nil, `{"a":{"hash":"a","sender":"b","amount":1}}`, "lacks hash, sender, amount"},
		{"null below", nil, `{"hash":{"hash":null},"sender":[null],"amount":1}`, ""},
		{"odd names", []string{"a b", "ü\n", `"`}, `{"a b":1,"\u00fc\n":2,"\"":3}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := compile(t, func(in *topology.Intake) {
				if test.fields != nil {
					in.RequiredFields = test.fields
				}
			})
			if err := c.Check([]byte(test.body)); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err := Probe([]byte(test.body)); err != nil {
				t.Error(err)
			}
		})
	}
	fields := []string{}
	for i := range 64 {
		fields = append(fields, fmt.Sprint("field", i))
	}
	c := compile(t, func(in *topology.Intake) { in.RequiredFields = fields })
	if err := c.Check([]byte(many(64, `"a":1`))); err != nil {
		t.Error(err)
	}
	if err := c.Check([]byte(many(63, `"a":1`))); err == nil || !strings.Contains(err.Error(), "lacks field63;") {
		t.Errorf("got %v", err)
	}
}

func TestJSONRPC(t *testing.T) {
	for _, test := range []struct{ name, body, want string }{
		{"a request", `{"jsonrpc":"2.0","method":"eth_call","params":[1],"id":1}`, ""},
		{"named parameters", `{"jsonrpc":"2.0","method":"eth_call","params":{},"id":"x"}`, ""},
		{"a notification", `{"jsonrpc":"2.0","method":"eth_call"}`, ""},
		{"null id", `{"jsonrpc":"2.0","method":"eth_call","id":null}`, ""},
		{"a batch", `[{"jsonrpc":"2.0","method":"eth_call"},{"jsonrpc":"2.0","method":"eth_send"}]`, ""},
		{"an empty batch", ` []`, "at least 1"},
		{"a large batch", `[{"jsonrpc":"2.0","method":"eth_call"},{"jsonrpc":"2.0","method":"eth_call"},{"jsonrpc":"2.0","method":"eth_call"}]`, "at most 2"},
		{"a batch in a batch", `[[]]`, "(/0): it is not an object"},
		{"a fault in a batch", `[{"jsonrpc":"2.0","method":"eth_call"},{"jsonrpc":"2.0"}]`, "(/1): it lacks method"},
		{"no version", `{"method":"eth_call"}`, "lacks jsonrpc"},
		{"another version", `{"jsonrpc":"1.0","method":"eth_call"}`, "want one of 2.0"},
		{"a number as version", `{"jsonrpc":2.0,"method":"eth_call"}`, "not a string"},
		{"another method", `{"jsonrpc":"2.0","method":"eth_mine"}`, "want one of eth_call, eth_send"},
		{"text as parameters", `{"jsonrpc":"2.0","method":"eth_call","params":"a"}`, "not an array or an object"},
		{"null parameters", `{"jsonrpc":"2.0","method":"eth_call","params":null}`, "not an array or an object"},
		{"an object as id", `{"jsonrpc":"2.0","method":"eth_call","id":{}}`, "not null or an integer or a string"},
		{"a fraction as id", `{"jsonrpc":"2.0","method":"eth_call","id":1.5}`, "not null or an integer or a string"},
		{"a response", `{"jsonrpc":"2.0","result":1,"id":1}`, "lacks method"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := compile(t, func(in *topology.Intake) {
				in.RequiredFields, in.JSONRPC = nil, &topology.JSONRPC{Methods: []string{"eth_call", "eth_send"}, MaxBatch: 2}
			})
			if err := c.Check([]byte(test.body)); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	c := compile(t, func(in *topology.Intake) {
		in.JSONRPC = &topology.JSONRPC{MaxBatch: 2}
		in.RequiredFields, in.JSONSchema = []string{"id"}, `{"properties":{"params":{"maxItems":1}}}`
	})
	for body, want := range map[string]string{
		`[{"jsonrpc":"2.0","method":"any","id":1},{"jsonrpc":"2.0","method":"any","id":1,"params":[1,2]}]`: "(/1/params)",
		`{"jsonrpc":"2.0","method":"any","params":[1]}`:                                                    "lacks id",
		`{"jsonrpc":"2.0","method":"any","id":null}`:                                                       "lacks id",
	} {
		if err := c.Check([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", body, err, want)
		}
	}
	c = compile(t, func(in *topology.Intake) { in.RequiredFields, in.JSONRPC = nil, &topology.JSONRPC{} })
	if err := c.Check([]byte(`[{"jsonrpc":"2.0","method":"a"}]`)); err == nil || !strings.Contains(err.Error(), "no JSON-RPC batches") {
		t.Errorf("got %v", err)
	}
}

// TestStepsAreBounded tries a schema that would take two to the thirtieth steps.
func TestStepsAreBounded(t *testing.T) {
	c := compile(t, with(`{"anyOf":[{"properties":{"a":{"$ref":"#"}},"type":["object","array"]},{"properties":{"a":{"$ref":"#"}},"type":["object","array"]}]}`))
	body := []byte(strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 31))
	if err := c.Check(body); err == nil || !strings.Contains(err.Error(), "too many steps") {
		t.Errorf("got %v", err)
	}
	if err := c.Check([]byte(`{"a":[]}`)); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if _, err := Compile(policy(with(`{"$dynamicAnchor":"n","properties":{"a":{"$dynamicRef":"#n"}}}`))); err == nil {
		t.Error("$dynamicRef compiles")
	}
}

// TestErrorsDoNotEcho holds errors to 40 octets of the payload.
func TestErrorsDoNotEcho(t *testing.T) {
	secret := strings.Repeat("s3cret", 50)
	for _, c := range []*Checker{
		compile(t, nil),
		compile(t, with(`{"additionalProperties":{"type":"object","additionalProperties":{"type":"integer"}}}`)),
		compile(t, with(`{"propertyNames":{"maxLength":3},"not":{"required":["x"]},"additionalProperties":{"additionalProperties":{"enum":[1]}}}`)),
		compile(t, with(`{"allOf":[{"additionalProperties":false}]}`)),
	} {
		for _, body := range []string{
			`{"` + secret + `":{"` + secret + `":"` + secret + `"}}`, `{"` + secret + `":1,"` + secret + `":1}`, `{"` + secret + `":{"` + secret + `":\u202e}}`,
		} {
			err := c.Check([]byte(body))
			if err == nil {
				t.Fatalf("%s is taken", body)
			}
			if n := strings.Count(err.Error(), "s3cret"); n > 6 || !utf8.ValidString(err.Error()) {
				t.Errorf("%v", err)
			}
		}
	}
}

func TestSigned(t *testing.T) {
	policy := &topology.Signature{Header: "X-Signature", Timestamp: "X-Timestamp", Tolerance: topology.Duration(5 * time.Minute)}
	body, secret, now := []byte(`{"a":1}`), []byte("secret"), time.Unix(1_800_000_000, 0)
	sign := func(at string) string {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(at + "." + string(body)))
		return hex.EncodeToString(mac.Sum(nil))
	}
	for _, test := range []struct{ name, signature, at, want string }{
		{"right", sign("1800000000"), "1800000000", ""},
		{"with its name", "sha256=" + sign("1800000000"), "1800000000", ""},
		{"upper case", strings.ToUpper(sign("1800000000")), "1800000000", ""},
		{"as old as may be", sign("1799999700"), "1799999700", ""},
		{"as new as may be", sign("1800000300"), "1800000300", ""},
		{"old", sign("1799999699"), "1799999699", "5m1s away"},
		{"new", sign("1800000301"), "1800000301", "5m1s away"},
		{"of another time", sign("1800000001"), "1800000000", "does not match"},
		{"missing", "", "1800000000", "is missing"},
		{"no time", sign(""), "", "is missing"},
		{"short", sign("1800000000")[2:], "1800000000", "64 hexadecimal digits"},
		{"no digits", strings.Repeat("x", 64), "1800000000", "64 hexadecimal digits"},
		{"another name", "sha1=" + sign("1800000000"), "1800000000", "64 hexadecimal digits"},
		{"a sign", sign("+1800000000"), "+1800000000", "Unix seconds"},
		{"a fraction", sign("1800000000.5"), "1800000000.5", "Unix seconds"},
		{"long", sign("0001800000000"), "0001800000000", "Unix seconds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Signed(policy, body, test.signature, test.at, secret, now)
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if err := Signed(policy, []byte(`{"a":2}`), sign("1800000000"), "1800000000", secret, now); !errors.Is(err, ErrSignature) {
		t.Errorf("another body: got %v", err)
	}
	if err := Signed(policy, body, sign("1800000000"), "1800000000", nil, now); !errors.Is(err, ErrNoSecret) {
		t.Errorf("no secret: got %v", err)
	}
}

func TestType(t *testing.T) {
	c := compile(t, nil)
	for _, good := range []string{
		"application/json", "application/json; charset=utf-8", `Application/JSON ; charset="UTF-8"`, "application/vnd.api+json", "application/json; profile=x",
	} {
		if err := c.Type(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "text/json", "application/json; charset=latin1", "application/+json", "application/jsonx", "application/json;;=", strings.Repeat("a", 300),
	} {
		if err := c.Type(bad); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = c.Type("application/json; charset=utf-8") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPlace(t *testing.T) {
	p := compile(t, func(in *topology.Intake) {
		in.Elsewhere = []topology.Elsewhere{
			{Path: "/ws"}, {Path: "/stream/*", To: "/s/*"}, {Path: "/stream/big/*", To: "/heavy"}, {Path: "/stream/one", To: "/1"}, {Path: "/keep/*"},
		}
	})
	for path, want := range map[string]string{
		"/ws": "/ws", "/stream/a/b": "/s/a/b", "/stream/": "/s/", "/stream/big/x": "/heavy", "/stream/one": "/1", "/keep/%20x": "/keep/%20x",
		"/stream": "/s", "/streams": "", "/ws/": "", "/": "", "/stream/../x": "", "/stream/./x": "", "/stream/%2E%2e/x": "", "/stream//x": "", "/stream/a b": "", "/stream/\r\nx": "",
		"/stream/é": "", "/stream/a?b": "", "": "", "/stream/" + strings.Repeat("a", 3000): "", `/stream/\x`: "",
	} {
		if got, ok := p.Place(path); got != want || ok != (want != "") {
			t.Errorf("%.40q: got %q, want %q", path, got, want)
		}
	}
}

// kilobyte is a payload of 1 KB with what transactions have.
var kilobyte = func() []byte {
	b, _ := json.Marshal(map[string]any{
		"hash": "0x" + strings.Repeat("9f", 32), "sender": "0x" + strings.Repeat("1a", 20), "amount": 1250000, "nonce": 42, "gas": "21000",
		"data": "0x" + strings.Repeat("00ab", 150), "tags": []string{"transfer", "ünïcode"}, "meta": map[string]any{"client": "geth/1.14", "try": 1},
	})
	return b
}()

const kilobyteSchema = `{"type":"object","required":["hash","sender","amount"],"additionalProperties":false,"properties":{
	"hash":{"type":"string","minLength":66,"maxLength":66},"sender":{"type":"string","minLength":42},"amount":{"type":"integer","minimum":1},
	"nonce":{"type":"integer"},"gas":{"enum":["21000","50000"]},"data":{"type":"string"},"tags":{"type":"array","items":{"type":"string"},"maxItems":4},
	"meta":{"type":"object"}}}`

func TestFastPathDoesNotAllocate(t *testing.T) {
	for name, c := range map[string]*Checker{"fields": compile(t, nil), "schema": compile(t, with(kilobyteSchema))} {
		if c.full != nil {
			t.Fatalf("%s: the full validator is used", name)
		}
		s := newScanner(nil, c.maxDepth) // held, since the pool forgets some under the race detector
		if n := testing.AllocsPerRun(200, func() {
			if s.begin(kilobyte, c.maxDepth); !s.document(c.top) {
				t.Fatal(s.fault())
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	fields, schema := compile(b, nil), compile(b, with(kilobyteSchema))
	whole := compile(b, with(`{"allOf":[`+kilobyteSchema+`]}`))
	rpc := compile(b, func(in *topology.Intake) { in.RequiredFields, in.JSONRPC = nil, &topology.JSONRPC{} })
	call := []byte(`{"jsonrpc":"2.0","method":"eth_sendRawTransaction","params":["0x` + strings.Repeat("ab", 460) + `"],"id":1}`)
	var sink any
	for _, bench := range []struct {
		name string
		body []byte
		run  func([]byte) error
	}{
		{"fields", kilobyte, fields.Check}, {"schema", kilobyte, schema.Check}, {"full", kilobyte, whole.Check}, {"json-rpc", call, rpc.Check},
		{"encoding/json", kilobyte, func(body []byte) error { return json.Unmarshal(body, &sink) }},
		{"json.Valid", kilobyte, func(body []byte) error { json.Valid(body); return nil }},
		{"utf8.Valid", kilobyte, func(body []byte) error { utf8.Valid(body); return nil }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.body)))
			for b.Loop() {
				if err := bench.run(bench.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzCheck holds the scanner to encoding/json, but for the differences that docs/intake.md tells: see reference.
func FuzzCheck(f *testing.F) {
	for _, body := range []string{
		`{}`, `[1,-0,1E400,"\ud83d\ude00",null]`, `{"a":{"a":1},"\u0061":2}`, "\ufeff{}", "{\"a\":\"\xff\"}", `"\ud83d"`, `1e1000`, strings.Repeat("[", 40),
		string(kilobyte), many(40, `"a":1`), ` "é` + "\u2028" + `" `,
	} {
		f.Add([]byte(body))
	}
	c, err := Compile(policy(func(in *topology.Intake) { in.RequiredFields, in.JSONSchema = nil, "true" }))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got, want := c.Check(body), reference(body, 32)
		if (got == nil) != (want == nil) {
			t.Fatalf("%q: got %v, want %v", body, got, want)
		}
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
	})
}
