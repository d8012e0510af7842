package flagfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

type values struct {
	config string
	listen []string
	limit  int
	age    time.Duration
	probe  bool
	nsid   string
}

func newFlags() (*pflag.FlagSet, *values) {
	v := &values{}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.StringVar(&v.config, "config", "", "")
	flags.StringSliceVar(&v.listen, "listen", []string{"default"}, "")
	flags.IntVar(&v.limit, "limit", 7, "")
	flags.DurationVar(&v.age, "age", time.Minute, "")
	flags.BoolVar(&v.probe, "probe", true, "")
	flags.StringVar(&v.nsid, "nsid", "", "")
	return flags, v
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flags.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandLineWins(t *testing.T) {
	flags, got := newFlags()
	if err := flags.Parse([]string{"--limit=9", "--listen=x", "--listen=y"}); err != nil {
		t.Fatal(err)
	}
	given := Of(flags)
	path := write(t, "# mine\nlimit: 8\nlisten: [a, 'b,c']\nprobe: false\nage: 5s\nnsid: 17\n")
	if err := Read(path, flags, "config"); err != nil {
		t.Fatal(err)
	}
	want := values{listen: []string{"x", "y"}, limit: 9, age: 5 * time.Second, nsid: "17"}
	if diff := cmp.Diff(want, *got, cmp.AllowUnexported(values{})); diff != "" {
		t.Error(diff)
	}

	again, got := newFlags() // as a process does that reads its file again
	if err := given.Apply(again); err != nil {
		t.Fatal(err)
	}
	if err := Read(write(t, "listen: one\nnsid: new"), again, "config"); err != nil {
		t.Fatal(err)
	}
	want = values{listen: []string{"x", "y"}, limit: 9, age: time.Minute, nsid: "new", probe: true}
	if diff := cmp.Diff(want, *got, cmp.AllowUnexported(values{})); diff != "" {
		t.Error(diff)
	}
}

func TestLists(t *testing.T) {
	for text, want := range map[string][]string{
		"":                       {"default"},
		"listen: []":             {},
		"listen: a":              {"a"},
		"listen:\n  - a\n  - b ": {"a", "b"},
	} {
		flags, got := newFlags()
		if err := Read(write(t, text), flags); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.listen); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestFaults(t *testing.T) {
	flags, _ := newFlags()
	path := write(t, strings.Join([]string{
		"lissen: [a]", "limit: many", "age: 5", "probe: maybe", "nsid: [a]", "listen: [a, {b: c}]", "config: x", "limit: 1", "nsid: ",
	}, "\n"))
	err := Read(path, flags, "config")
	var faults *Error
	if !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	want := strings.ReplaceAll(`FILE:1: lissen: unknown key; did you mean listen?
FILE:2: limit: "many" is not a whole number that fits
FILE:3: age: "5" is not a duration such as 30s, 1m or 2h30m
FILE:4: probe: "maybe" is not true or false
FILE:5: nsid: want one value
FILE:6: listen: want a list of values, such as [a, b]
FILE:7: config: unknown key; known are age, limit, listen, nsid, probe
FILE:8: limit: stands here twice
FILE:9: nsid: stands here twice`, "FILE", path)
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestNotAFileOfFlags(t *testing.T) {
	for text, want := range map[string]string{
		"[a]":              ":1: want names of flags",
		"a: [":             ":1: not YAML: did not",
		"age: 1s\n\nb: {":  ":3: not YAML: did not",
		"limit: 1\n---\na": ":2: a second document",
		"limit: &x 1":      ":1: limit: anchors",
		"nsid: ":           ":1: nsid: has no value",
	} {
		flags, _ := newFlags()
		if err := Read(write(t, text), flags); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	flags, _ := newFlags()
	if err := Read(filepath.Join(t.TempDir(), "nowhere"), flags); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("listen: [a]\nlimit: 3\n")
	f.Add("limit: &x 1\nage: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		flags, _ := newFlags()
		if err := Read(write(t, text), flags); err != nil && fmt.Sprint(err) == "" {
			t.Error("an error without words")
		}
	})
}
