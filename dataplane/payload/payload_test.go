package payload

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"encoding/json"

	"github.com/isochrone/isochrone/topology"
)

// compile makes the checker of a policy, with a policy's defaults.
func compile(t testing.TB, change func(*topology.Intake)) *Checker {
	t.Helper()
	in := topology.Intake{
		ContentTypes: []string{"application/json", "application/*+json"}, RequiredFields: []string{"hash", "sender", "amount"}, MaxDepth: 32,
	}
	if change != nil {
		change(&in)
	}
	c, err := Compile(&in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func free(in *topology.Intake) { in.RequiredFields = nil }

// TestDefinedAnswers has what JSON leaves open, or what parsers differ in.
func TestDefinedAnswers(t *testing.T) {
	plain, deep := compile(t, free), func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	for _, test := range []struct{ name, body, want string }{
		{"object", `{}`, ""},
		{"space around", " \t\r\n{ \"a\" : [ 1 , 2 ] } \n", ""},
		{"empty", ``, "is empty"},
		{"space", "  \n", "is empty"},
		{"byte order mark", "\xef\xbb\xbf{}", "byte order mark"},
		{"array", `[1]`, "not an object"},
		{"number", `1`, "not an object"},
		{"null", `null`, "not an object"},
		{"string", `"a"`, "not an object"},
		{"rubbish", `rubbish`, "where a value is wanted"},
		{"two values", `{}{}`, "goes on after its end (at octet 2)"},
		{"a NUL after it", "{}\x00", "goes on after its end"},
		{"cut off", `{"a":1`, "ends inside an object"},
		{"cut off in a name", `{"a`, "ends inside a string"},
		{"no colon", `{"a" 1}`, "colon"},
		{"no comma", `{"a":1 "b":2}`, "comma"},
		{"comma at the end", `{"a":1,}`, "name of a field"},
		{"comma at an array's end", `{"a":[1,]}`, `has "]}" where a value is wanted (at octet 8, in /a/1)`},
		{"single quotes", `{'a':1}`, "name of a field"},
		{"comment", `{/**/}`, "name of a field"},
		{"duplicate", `{"a":1,"a":2}`, `"a" twice`},
		{"duplicate by an escape", `{"a":1,"\u0061":2}`, `"a" twice`},
		{"duplicate by a pair", `{"😀":1,"\ud83d\ude00":2}`, "twice"},
		{"duplicate within", `{"a":[{"b":{"c":1,"d":2,"c":3}}]}`, `"c" twice in an object (at octet 24, in /a/0/b)`},
		{"duplicate among many", "{" + fields(40) + `,"n7":1}`, `"n7" twice`},
		{"many", "{" + fields(40) + `,"more":{` + fields(40) + "}}", ""},
		{"one name in two objects", `{"a":{"a":{"a":1}},"b":{"a":2}}`, ""},
		{"other case", `{"a":1,"A":2}`, ""},
		{"empty name", `{"":1}`, ""},
		{"too many names", "{" + fields(100_001) + "}", "more than 100000 fields"},
		{"not UTF-8", "{\"a\":\"\xff\"}", "is not UTF-8 (at octet 6, in /a)"},
		{"surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\"}", "is not UTF-8"},
		{"overlong", "{\"a\":\"\xc0\xaf\"}", "is not UTF-8"},
		{"not UTF-8 outside a string", "{\"a\":1}\xff", "goes on"},
		{"any character", `{"a":"äöü€😀\u20ac\ud83d\ude00 \u0000"}`, ""},
		{"half a pair", `{"a":"\ud83d"}`, "half a surrogate pair"},
		{"half a pair and more", `{"a":"\ud83dxx"}`, "half a surrogate pair"},
		{"a pair the wrong way round", `{"a":"\ude00\ud83d"}`, "half a surrogate pair"},
		{"control character", "{\"a\":\"\n\"}", `control character in a string: write \u000a`},
		{"DEL", "{\"a\":\"\x7f\"}", ""},
		{"no escape", `{"a":"\x"}`, "no escape"},
		{"half an escape", `{"a":"\u12"}`, "no escape"},
		{"deep", deep(31), ""},
		{"deeper", deep(32), "nested deeper than 32"},
		{"very deep", deep(1_000_000), "nested deeper than 32"},
		{"numbers", `{"a":[0,-0,1,-1,1.5,1e5,1E+5,1e-5,0.0,-0.0e0,123456789012345678901234567890]}`, ""},
		{"as many digits as there may be", `{"a":` + strings.Repeat("9", 64) + "}", ""},
		{"more digits", `{"a":` + strings.Repeat("9", 65) + "}", "65 digits"},
		{"a large exponent", `{"a":1E400,"b":1e-9999,"c":1e0009999}`, ""},
		{"a larger exponent", `{"a":1e10000}`, "exponent"},
		{"plus", `{"a":+1}`, "value is wanted"},
		{"leading zero", `{"a":01}`, "begins with 0"},
		{"negative leading zero", `{"a":-01}`, "begins with 0"},
		{"no digits", `{"a":-}`, "number is wanted"},
		{"a point alone", `{"a":1.}`, "after its point"},
		{"point first", `{"a":.1}`, "value is wanted"},
		{"exponent alone", `{"a":1e}`, "in its exponent"},
		{"not a number", `{"a":NaN}`, "value is wanted"},
		{"infinity", `{"a":-Infinity}`, "number is wanted"},
		{"hexadecimal", `{"a":0x10}`, "comma"},
		{"words", `{"a":[true,false,null]}`, ""},
		{"half a word", `{"a":tru}`, "value is wanted"},
		{"capitals", `{"a":True}`, "value is wanted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := plain.Check([]byte(test.body))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if problem := reference([]byte(test.body), plain); (err == nil) != (problem == "") {
				t.Errorf("got %v, and %q by the reference", err, problem)
			}
		})
	}
}

func fields(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"n%d":%d`, i, i))
	}
	return strings.Join(all, ",")
}

func TestRequiredFields(t *testing.T) {
	c := compile(t, nil)
	for body, want := range map[string]string{
		`{"hash":"0xab","sender":"0x01","amount": 1}`:                     "",
		`{"hash":"0xab","sen\u0064er":"0x01","amount":0,"x":{}}`:          "",
		`{"hash":"0xab","sender":"0x01"}`:                                 "lacks amount; required are hash, sender, amount",
		`{"hash":null,"Sender":"0x01","amount":false}`:                    "lacks hash, sender",
		`{"a":{"hash":"0xab","sender":"0x01","amount":1}}`:                "lacks hash, sender, amount",
		`{"hash":"","sender":"","amount":"","hash2":null,"deep":[[[0]]]}`: "",
	} {
		if err := c.Check([]byte(body)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

func TestTypes(t *testing.T) {
	c := compile(t, func(in *topology.Intake) { in.ContentTypes = append(in.ContentTypes, "text/csv") })
	for contentType, want := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON;charset=\"UTF-8\"": true,
		"application/json; charset=latin1": false, "application/cloudevents+json": true, "application/+json": false, "text/json": false,
		"text/csv": true, "text/csv; header=present": true, "": false, "application/json, application/json": false, "application/json;": true,
		"application/jsonx": false, strings.Repeat("a", 300): false,
	} {
		if err := c.Type(contentType); (err == nil) != want {
			t.Errorf("%q: got %v", contentType, err)
		}
	}
}

func TestJSONRPC(t *testing.T) {
	one := compile(t, func(in *topology.Intake) {
		free(in)
		in.JSONRPC = &topology.JSONRPC{Methods: []string{"eth_send", "eth_call"}}
	})
	many := compile(t, func(in *topology.Intake) { free(in); in.JSONRPC = &topology.JSONRPC{MaxBatch: 2} })
	call := `{"jsonrpc":"2.0","method":"eth_call","params":[{"method":1}],"id":1}`
	for _, test := range []struct {
		c          *Checker
		body, want string
	}{
		{one, call, ""},
		{one, `{"id":null,"method":"\u0065th_send","jsonrpc":"2.0"}`, ""},
		{one, `{"jsonrpc":"2.0","method":"eth_sign"}`, "eth_sign"},
		{one, `{"jsonrpc":"1.0","method":"eth_call"}`, "2.0"},
		{one, `{"method":"eth_call"}`, "without"},
		{one, `{"jsonrpc":"2.0"}`, "without a method"},
		{one, `{}`, "without"},
		{one, `{"jsonrpc":"2.0","method":7}`, "not a string"},
		{one, `{"jsonrpc":"2.0","method":"eth_call","params":"x"}`, "params"},
		{one, `{"jsonrpc":"2.0","method":"eth_call","id":{}}`, "id"},
		{one, "[" + call + "]", "not an object"},
		{many, call, ""},
		{many, "[" + call + "," + call + "]", ""},
		{many, "[" + call + "," + call + "," + call + "]", "more than 2"},
		{many, "[]", "empty batch"},
		{many, "[1]", "not a request"},
		{many, "[" + call + `,{"jsonrpc":"2.0"}]`, "without a method"},
	} {
		if err := test.c.Check([]byte(test.body)); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.body, err, test.want)
		}
	}
}

func TestJSONSchema(t *testing.T) {
	c := compile(t, func(in *topology.Intake) {
		free(in)
		in.JSONSchema = `{"type":"object","required":["amount"],"properties":{"amount":{"type":"integer","minimum":1},"to":{"type":"string","pattern":"^0x[0-9a-f]+$"}}}`
	})
	for body, want := range map[string]string{
		`{"amount":1}`: "",
		`{"amount":100000000000000000000000000001,"to":"0xab"}`: "",
		`{"amount":0}`:            "at /amount",
		`{"amount":1,"to":"ab"}`:  "at /to",
		`{"amount":1,"amount":2}`: "twice",
		`[]`:                      "Schema",
		`{}`:                      "amount",
	} {
		if err := c.Check([]byte(body)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

func TestPlace(t *testing.T) {
	c := compile(t, func(in *topology.Intake) {
		in.Elsewhere = []topology.Elsewhere{{Path: "/ws"}, {Path: "/stream/*", To: "/s/*"}, {Path: "/stream/old/*", To: "/gone"}, {Path: "/heavy", To: "/work"}}
	})
	for path, want := range map[string]string{
		"/ws": "/ws", "/ws/": "", "/wss": "", "/stream": "/s", "/stream/a/b": "/s/a/b", "/streams": "", "/stream/old/x": "/gone", "/heavy": "/work", "/": "",
	} {
		if got, ok := c.Place(path); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", path, got, ok, want)
		}
	}
}

func TestSigned(t *testing.T) {
	policy := &topology.Signature{Header: "X-Signature", Timestamp: "X-Timestamp", Tolerance: topology.Duration(5 * time.Minute)}
	now, secret, body := time.Unix(1_900_000_000, 0), []byte("secret"), []byte(`{"a":1}`)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("1900000000." + string(body)))
	right := hex.EncodeToString(mac.Sum(nil))
	for _, test := range []struct {
		name, signature, timestamp string
		now                        time.Time
		secret                     []byte
		ok                         bool
	}{
		{"right", right, "1900000000", now, secret, true},
		{"with its name", "sha256=" + right, "1900000000", now, secret, true},
		{"capitals", strings.ToUpper(right), "1900000000", now, secret, true},
		{"late", right, "1900000000", now.Add(5 * time.Minute), secret, true},
		{"too late", right, "1900000000", now.Add(5*time.Minute + time.Second), secret, false},
		{"too early", right, "1900000000", now.Add(-6 * time.Minute), secret, false},
		{"another time", right, "1900000001", now, secret, false},
		{"another form of the time", right, "01900000000", now, secret, false},
		{"no time", right, "", now, secret, false},
		{"no number", right, "now", now, secret, false},
		{"the end of time", right, "9223372036854775807", now, secret, false},
		{"no signature", "", "1900000000", now, secret, false},
		{"half", right[:32], "1900000000", now, secret, false},
		{"another", strings.Repeat("0", 64), "1900000000", now, secret, false},
		{"no secret", right, "1900000000", now, nil, false},
	} {
		err := Signed(policy, body, test.signature, test.timestamp, test.secret, test.now)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

// reference says what is wrong with a payload, the obvious way, or nothing.
func reference(body []byte, c *Checker) string {
	switch {
	case !utf8.Valid(body):
		return "not UTF-8"
	case !json.Valid(body):
		return "not JSON"
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	names := 0
	var value func(depth int) string
	value = func(depth int) string {
		token, err := d.Token()
		if err != nil {
			return err.Error()
		}
		switch v := token.(type) {
		case json.Number:
			mantissa, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
			if n := len(strings.NewReplacer("-", "", ".", "").Replace(mantissa)); n > maxDigits {
				return "digits"
			}
			if len(strings.TrimLeft(strings.TrimLeft(exponent, "+-"), "0")) > 4 {
				return "exponent"
			}
		case json.Delim:
			if depth >= c.maxDepth {
				return "depth"
			}
			seen := map[string]bool{}
			for d.More() {
				if v == '{' {
					name, err := d.Token()
					if err != nil {
						return err.Error()
					}
					if names++; seen[name.(string)] || names > maxNames {
						return "twice"
					}
					seen[name.(string)] = true
				}
				if problem := value(depth + 1); problem != "" {
					return problem
				}
			}
			if _, err := d.Token(); err != nil {
				return err.Error()
			}
		}
		return ""
	}
	if strings.TrimLeft(string(body), " \t\r\n")[0] != '{' {
		return "no object"
	}
	if halves(body) {
		return "half a pair"
	}
	return value(0)
}

// halves reports whether an escape in JSON is half a surrogate pair.
func halves(body []byte) bool {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		if i++; body[i] != 'u' {
			continue
		}
		unit := func(at int) int {
			var n int
			if at+6 > len(body) || body[at] != '\\' || body[at+1] != 'u' {
				return 0
			}
			_, _ = fmt.Sscanf(string(body[at+2:at+6]), "%x", &n)
			return n
		}
		switch n := unit(i - 1); {
		case n >= 0xd800 && n < 0xdc00:
			if low := unit(i + 5); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 10
		case n >= 0xdc00 && n <= 0xdfff:
			return true
		}
	}
	return false
}

// FuzzSyntax holds the scanner to the reference.
func FuzzSyntax(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,{"b":"\u00e4\ud83d\ude00"},-0.5e+10,true,false,null]}`, `{"a":1,"a":2}`, `{"\u0061":1,"a":2}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`,
		" {} \n", `{"aaaaaaaaaaaaaaaaaaaaaaaaa":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"}`, "{" + fields(30) + "}",
	} {
		f.Add([]byte(seed))
	}
	c := compile(f, free)
	f.Fuzz(func(t *testing.T, body []byte) {
		err := c.Check(body)
		if problem := reference(body, c); (err == nil) != (problem == "") {
			t.Errorf("%q: got %v, and %q by the reference", body, err, problem)
		}
	})
}

// FuzzJSONRPC looks for panics, and for a request that is taken and has no method.
func FuzzJSONRPC(f *testing.F) {
	f.Add([]byte(`[{"jsonrpc":"2.0","method":"m","params":{},"id":"1"}]`))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"m"}`))
	c := compile(f, func(in *topology.Intake) { free(in); in.JSONRPC = &topology.JSONRPC{MaxBatch: 3} })
	f.Fuzz(func(t *testing.T, body []byte) {
		if c.Check(body) != nil {
			return
		}
		type request struct {
			Version string `json:"jsonrpc"`
			Method  *string
		}
		all := make([]request, 1)
		if json.Unmarshal(body, &all) != nil && json.Unmarshal(body, &all[0]) != nil {
			t.Fatalf("%q was taken", body)
		}
		var raw []map[string]json.RawMessage
		if json.Unmarshal(body, &raw) != nil {
			raw = make([]map[string]json.RawMessage, 1)
			_ = json.Unmarshal(body, &raw[0])
		}
		for _, r := range raw {
			if string(r["jsonrpc"]) != `"2.0"` || len(r["method"]) == 0 || r["method"][0] != '"' {
				t.Errorf("%q was taken", body)
			}
		}
	})
}

func kilobyte() []byte {
	return []byte(`{"hash":"0000000000000000","sender":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","amount":1,"data":"` + strings.Repeat("x", 920) + `"}`)
}

func TestScanAllocatesNothing(t *testing.T) {
	c, body := compile(t, nil), kilobyte()
	if n := testing.AllocsPerRun(1000, func() {
		if err := c.Check(body); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	many := []byte(`{"hash":"a","sender":"b","amount":1,` + fields(100) + "}")
	for name, body := range map[string][]byte{"text": kilobyte(), "fields": many} {
		b.Run(name, func(b *testing.B) {
			c := compile(b, nil)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if err := c.Check(body); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/encoding-json", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if !json.Valid(body) {
					b.Fatal()
				}
			}
		})
		b.Run(name+"/utf8", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if !utf8.Valid(body) {
					b.Fatal()
				}
			}
		})
	}
}
