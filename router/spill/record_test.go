package spill

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/isochrone/isochrone/router"
)

var someShares = router.Spill{
	Takes: map[Leading]router.Takes{{"fra1", "ams1", "lhr1"}: {"fra1": 0.8, "ams1": 0.5}, {"fra1", "ams1", "cdg1"}: {"fra1": 0}, {"sin1"}: {"sin1": 0.25}},
	Lost:  map[string]map[Leading]router.Takes{"fra1": {{"fra1", "ams1", "lhr1"}: {"ams1": 0.3}, {"fra1", "ams1"}: {}}},
}

func TestRecord(t *testing.T) {
	text, err := Encode(someShares)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schema":1,"takes":[{"clients":["fra1","ams1","cdg1"],"takes":{"fra1":0}},{"clients":["fra1","ams1","lhr1"],"takes":{"ams1":0.5,"fra1":0.8}},` +
		`{"clients":["sin1"],"takes":{"sin1":0.25}}],"lost":{"fra1":[{"clients":["fra1","ams1"],"takes":{}},{"clients":["fra1","ams1","lhr1"],"takes":{"ams1":0.3}}]}}` + "\n"
	if string(text) != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	back, err := Decode(text)
	if diff := cmp.Diff(someShares, back); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if text, err := Encode(router.Spill{}); err != nil || string(text) != "{\"schema\":1}\n" {
		t.Errorf("no shares: got %s, %v", text, err)
	}
}

func TestInvalidRecords(t *testing.T) {
	for _, test := range []struct {
		text, want string
		err        error
	}{
		{`{"schema":2,"other":1}`, "2, this node knows 1", ErrTooNew},
		{`{"schema":0}`, "schema: 0 is not 1", ErrInvalid},
		{`{"schema":1,"takes":[{"clients":[],"takes":{}},{"clients":["a"],"takes":{"a":1.5,"b":-1}}],"lost":{"":[]}}`, "takes[1].takes.b: -1 is not a share", ErrInvalid},
		{`{"schema":1,"takes":[{"clients":["a"],"takes":{}},{"clients":["a"],"takes":{}}]}`, "stand there twice", ErrInvalid},
		{`{"schema":1,"takes":[{"clients":["a","","b"],"takes":{}}]}`, "are not the names", ErrInvalid},
		{`{"schema":1,"shares":{}}`, `unknown field "shares"`, ErrInvalid},
		{`{"schema":1}{}`, "after top-level value", ErrInvalid},
		{`x`, "invalid character", ErrInvalid},
	} {
		_, err := Decode([]byte(test.text))
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.text, err, test.want)
		}
	}
	if _, err := Encode(router.Spill{Takes: map[Leading]router.Takes{{"a"}: {"a": math.NaN()}}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("not a number: got %v", err)
	}
	if _, err := Decode(make([]byte, MaxRecord+2)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too long: got %v", err)
	}
}

// TestLongRecords has shares that are kept compressed, and a record that is more than it seems.
func TestLongRecords(t *testing.T) {
	long := router.Spill{Takes: map[Leading]router.Takes{}}
	for i := range 5000 {
		name := fmt.Sprintf("pop%04d", i)
		long.Takes[Leading{name, "ams1", "lhr1", "cdg1"}] = router.Takes{name: float64(i) / 5000}
	}
	text, err := Encode(long)
	if err != nil || len(text) > plainRecord || text[0] != 0x1f {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	back, err := Decode(text)
	if diff := cmp.Diff(long, back); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := Decode(text[:len(text)-20]); !errors.Is(err, ErrInvalid) {
		t.Errorf("half a record: got %v", err)
	}
	if _, err := Decode(compressed(bytes.Repeat([]byte(" "), unpacked+1))); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "when it is unpacked") {
		t.Errorf("a record that is far more than it seems: got %v", err)
	}
}

// FuzzDecode finds records that are read and not written again, or not alike.
func FuzzDecode(f *testing.F) {
	text, err := Encode(someShares)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(compressed(text))
	f.Add([]byte(`{"schema":1,"takes":[{"clients":["a","b"],"takes":{"a":0.5}}],"lost":{"a":[{"clients":["a","b"],"takes":{}}]}}`))
	f.Add([]byte(`{"schema":1,"takes":null,"lost":{"a":null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Decode(text)
		if err != nil {
			return
		}
		again, err := Encode(s)
		if err != nil {
			t.Fatalf("%q is read and not written: %v", text, err)
		}
		same, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := Encode(same); err != nil || !bytes.Equal(again, twice) {
			t.Fatalf("%q is written as %q and %q (%v)", text, again, twice, err)
		}
	})
}
