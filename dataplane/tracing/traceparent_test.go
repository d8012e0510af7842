package tracing

import (
	"regexp"
	"strings"
	"testing"
)

const example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" // of the Recommendation

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, header string
		sampled, ok  bool
	}{
		{"sampled", example, true, true},
		{"not sampled", strings.TrimSuffix(example, "1") + "0", false, true},
		{"other flags", strings.TrimSuffix(example, "01") + "fe", false, true},
		{"all flags", strings.TrimSuffix(example, "01") + "ff", true, true},
		{"a later version", "cc" + strings.TrimPrefix(example, "00"), true, true},
		{"a later version with more", "cc" + strings.TrimPrefix(example, "00") + "-what", true, true},
		{"a later version with more, not apart", "cc" + strings.TrimPrefix(example, "00") + "what", false, false},
		{"more", example + "-what", false, false},
		{"the version ff", "ff" + strings.TrimPrefix(example, "00"), false, false},
		{"nothing", "", false, false},
		{"short", example[:54], false, false},
		{"upper case", strings.ToUpper(example), false, false},
		{"no trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", false, false},
		{"no parent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false, false},
		{"a space", " " + example[1:], false, false},
		{"underscores", strings.ReplaceAll(example, "-", "_"), false, false},
		{"no hex flag", strings.TrimSuffix(example, "1") + "g", false, false},
		{"no hex version", "0x" + example[2:], false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := Parse(test.header)
			if ok != test.ok || got.Sampled != test.sampled {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
	if got, _ := Parse(example); got.String() != example {
		t.Errorf("got %s", got)
	}
}

var form = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]$`)

func TestChild(t *testing.T) {
	child := Child(example)
	if !form.MatchString(child) || child[:36] != example[:36] || child[36:52] == example[36:52] || !strings.HasSuffix(child, "-01") {
		t.Errorf("got %s of %s", child, example)
	}
	if a, b := Child(""), Child("wrong"); !form.MatchString(a) || !form.MatchString(b) || a[:35] == b[:35] || !strings.HasSuffix(a, "-00") {
		t.Errorf("got %s and %s", a, b)
	}
	buffer := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { AppendChild(buffer, example) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParse holds the parser to the grammar, and to what it writes.
func FuzzParse(f *testing.F) {
	grammar := regexp.MustCompile(`^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|([1-9a-f][0-9a-f]|0[1-9a-f])-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-(?s:.*))?)$`)
	for _, header := range []string{example, "", "cc" + example[2:] + "-x", "ff" + example[2:], strings.ToUpper(example), example + "\n"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := Parse(header)
		want := grammar.MatchString(header) && header[:2] != "ff" && strings.Trim(header[3:35], "0") != "" && strings.Trim(header[36:52], "0") != ""
		if ok != want {
			t.Fatalf("%q: got %v, want %v", header, ok, want)
		}
		if !ok {
			return
		}
		if again, ok := Parse(got.String()); !ok || again != got {
			t.Errorf("%q: %+v, then %+v", header, got, again)
		}
		if child := Child(header); child[3:35] != header[3:35] || !form.MatchString(child) {
			t.Errorf("%q: child %q", header, child)
		}
	})
}
