package dataplane

import (
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/forward"
	"github.com/isochrone/isochrone/dataplane/spool"
)

// TestCondition has the signs of each second come, one letter a second: . well, c cut off, f the spool is full, l it is nearly full, s it sheds, a little.
func TestCondition(t *testing.T) {
	signs := map[rune]Signs{
		'.': {}, 'c': {CutOff: "cut off"}, 'f': {Refuses: "full", Filled: 1}, 'l': {Filled: 0.97}, 's': {ShedShare: 0.3}, ',': {ShedShare: 0.01},
		'b': {CutOff: "cut off", Refuses: "full", Filled: 1},
	}
	for _, test := range []struct{ name, seen, want string }{ // what is said: . nothing, D degraded, S sheds, B both
		{"well", "......", "......"},
		{"cut off for a moment", "ccc.ccc.", "........"},
		{"cut off, and back", "ccccc.....c.......", "...DDDDDDDDDDDDD.."},
		{"full, and room soon", "ffll.......", ".DDDDDDDD.."},
		{"nearly full from below", "llll", "...."},
		{"both", "bbbb.....c......", ".DDDDDDDDDDDDDD."},
		{"a short peak", "sssssssss......", "..............."},
		{"sheds for long", "ssssssssssss,,,,,,,,,,,.....................", "..........SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS."},
	} {
		c, got, now := Condition{}, "", time.Unix(0, 0)
		for _, letter := range test.seen {
			degraded, sheds := c.Take(signs[letter], now)
			said := "."
			switch {
			case degraded != "" && sheds:
				said = "B"
			case degraded != "":
				said = "D"
			case sheds:
				said = "S"
			}
			if c.Degraded() != degraded {
				t.Errorf("%s: it remembers %q, and says %q", test.name, c.Degraded(), degraded)
			}
			got, now = got+said, now.Add(time.Second)
		}
		if got != test.want {
			t.Errorf("%s:\nseen %s\ngot  %s\nwant %s", test.name, test.seen, got, test.want)
		}
	}
}

func TestCutOff(t *testing.T) {
	here, elsewhere, nowhere := forward.Reach{Here: true}, forward.Reach{Elsewhere: true}, forward.Reach{}
	o := &offers{services: map[string]*offer{"a": {}, "b": {}, "none": {}}}
	for _, test := range []struct {
		name string
		a, b forward.Reach
		want string
	}{
		{"both", here, here, ""},
		{"one is dead for all", here, nowhere, ""},
		{"one is cut off here", here, elsewhere, "no cluster of b can be reached from it"},
		{"both are", elsewhere, elsewhere, "no cluster of a, b can be reached from it"},
		{"all is dead", nowhere, nowhere, "no cluster can be reached"},
	} {
		if got := cutOff(o, map[string]forward.Reach{"a": test.a, "b": test.b}); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if got := cutOff(o, nil); got != "" {
		t.Errorf("without clusters: got %q", got)
	}
}

func TestRefuses(t *testing.T) {
	for _, test := range []struct {
		held   spool.Stats
		says   bool
		filled float64
	}{
		{spool.Stats{Max: 10, MaxBytes: 100, Pending: 5, Bytes: 10}, false, 0.5},
		{spool.Stats{Max: 10, MaxBytes: 100, Pending: 10}, true, 1},
		{spool.Stats{Max: 10, MaxBytes: 100, Bytes: 60, DeadBytes: 40}, true, 1},
		{spool.Stats{Max: 10, MaxBytes: 100, Failing: true}, true, 0},
	} {
		if got := refuses(test.held); (got != "") != test.says || filled(test.held) != test.filled {
			t.Errorf("%+v: got %q, %v", test.held, got, filled(test.held))
		}
	}
}
