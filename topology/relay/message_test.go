package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isochrone/isochrone/topology/store"
)

// joined are the frames of an update.
func joined(u store.Update) []byte { return bytes.Join(encode(u, store.SumOf("k", nil)), nil) }

// TestMessages sends updates, small and in many parts, with keys and values of any octets.
func TestMessages(t *testing.T) {
	sum := store.SumOf("k", nil)
	large := store.Update{Revision: 7, Whole: true, Put: map[string][]byte{}, Sum: &sum}
	for i := range 100 {
		large.Put[fmt.Sprintf("topology/%d", i)] = bytes.Repeat([]byte{byte(i), 0xff}, 20_000)
	}
	large.Put["topology/large"] = bytes.Repeat([]byte("x"), 1_400_000)
	for _, u := range []store.Update{
		{Revision: 1, Put: map[string][]byte{}, Sum: &sum}, large,
		{Revision: 2, Put: map[string][]byte{"keys/\xff": {0, 0xff}}, Delete: []string{"a", "\xfe"}, Sum: &sum},
	} {
		r := bytes.NewReader(joined(u))
		got, err := readUpdate(r)
		if err != nil || r.Len() != 0 || !reflect.DeepEqual(got, u) {
			t.Errorf("revision %d: %v, %d octets left, and not what was sent", u.Revision, err, r.Len())
		}
	}
	if n := len(encode(large, sum)); n < 10 {
		t.Errorf("a large update has %d messages, want many", n)
	}
}

func TestMessagesRefused(t *testing.T) {
	ok := joined(store.Update{Revision: 1})
	for name, test := range map[string]struct {
		text []byte
		want string
	}{
		"too long":           {[]byte{0x7f, 0, 0, 0}, "at most"},
		"cut off":            {ok[:len(ok)-1], "unexpected EOF"},
		"cut off in front":   {ok[:3], "unexpected EOF"},
		"no JSON":            {[]byte{0, 0, 0, 1, 'x'}, "not JSON"},
		"ends between parts": {frame(message{Revision: 1, More: true}), "unexpected EOF"},
		"another revision":   {append(frame(message{Revision: 1, More: true}), frame(message{Revision: 2})...), "belong together"},
		"whole in between":   {append(frame(message{Revision: 1, More: true}), frame(message{Revision: 1, Whole: true})...), "belong together"},
		"an odd sum":         {append([]byte{0, 0, 0, 12}, `{"sum":"ab"}`...), "a sum of 2"},
	} {
		if _, err := readUpdate(bytes.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	if _, err := readUpdate(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Errorf("an end between updates: got %v", err)
	}
}

// FuzzReadUpdate reads updates of others. What is read can be sent on, and is the same then.
func FuzzReadUpdate(f *testing.F) {
	f.Add(joined(store.Update{Revision: 3, Whole: true, Put: map[string][]byte{"topology/a": []byte("1")}, Delete: []string{"x"}}))
	f.Add(append(frame(message{Revision: 1, More: true}), frame(message{Revision: 1})...))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := readUpdate(bytes.NewReader(text))
		if err != nil || u.Sum == nil {
			return
		}
		again, err := readUpdate(bytes.NewReader(bytes.Join(encode(u, *u.Sum), nil)))
		if len(u.Delete) == 0 {
			u.Delete = nil
		}
		if !cmp.Equal(again, u, cmp.Comparer(bytes.Equal)) || err != nil {
			t.Errorf("%v: got %+v, want %+v", err, again, u)
		}
	})
}
