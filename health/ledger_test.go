package health

import (
	"errors"
	"testing"
	"time"
)

func TestLedger(t *testing.T) {
	say := func(incarnation int64, sequence uint64, full bool, what ...Statement) *Report {
		return &Report{Vantage: Vantage{Name: "pop:fra1"}, Incarnation: incarnation, Sequence: sequence, Full: full, Statements: what}
	}
	of := func(name string, status Status) Statement {
		return Statement{Target: Target{PoP, name}, Status: status}
	}
	type step struct {
		report  *Report
		changed bool
		old     bool
		want    string // statuses of sin1 and iad1 afterwards
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"full and partial", []step{
			{say(1, 1, true, of("sin1", Up), of("iad1", Up)), true, false, "up up"},
			{say(1, 2, false, of("sin1", Down)), true, false, "down up"},
			{say(1, 3, false), false, false, "down up"},
			{say(1, 4, true, of("sin1", Down), of("iad1", Up)), false, false, "down up"},
			{say(1, 5, true, of("sin1", Down)), true, false, "down "},
		}},
		{"twice", []step{
			{say(1, 1, true, of("sin1", Up)), true, false, "up "},
			{say(1, 1, true, of("sin1", Up)), false, true, "up "},
		}},
		{"replayed", []step{
			{say(1, 1, true, of("sin1", Down), of("iad1", Down)), true, false, "down down"},
			{say(1, 2, true, of("sin1", Up), of("iad1", Up)), true, false, "up up"},
			{say(1, 1, true, of("sin1", Down), of("iad1", Down)), false, true, "up up"},
		}},
		{"replayed from before a start", []step{
			{say(1, 9, true, of("sin1", Down)), true, false, "down "},
			{say(2, 1, true, of("sin1", Up)), true, false, "up "},
			{say(1, 10, true, of("sin1", Down)), false, true, "up "},
		}},
		{"the slower way brings what the faster one lost", []step{
			{say(1, 1, true, of("sin1", Up), of("iad1", Up)), true, false, "up up"},
			{say(1, 4, false, of("iad1", Down)), true, false, "up down"},
			{say(1, 3, true, of("sin1", Down), of("iad1", Up)), true, false, "down down"},
		}},
		{"what was said before a start counts until it is said again", []step{
			{say(1, 7, true, of("sin1", Down), of("iad1", Up)), true, false, "down up"},
			{say(2, 1, false, of("sin1", Up)), true, false, "up up"},
			{say(2, 2, true, of("sin1", Up)), true, false, "up "},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := NewLedger()
			for i, s := range test.steps {
				changed, err := l.Take(s.report, second(i))
				if changed != s.changed || errors.Is(err, ErrOld) != s.old {
					t.Errorf("step %d: got changed %v, %v; want %v, old %v", i, changed, err, s.changed, s.old)
				}
				statuses := map[string]Status{}
				for _, r := range l.Reports(func(string, time.Time) bool { return true }) {
					for _, s := range r.Statements {
						statuses[s.Target.Name] = s.Status
					}
				}
				if got := string(statuses["sin1"] + " " + statuses["iad1"]); got != s.want {
					t.Errorf("step %d: got %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

func TestLedgerKnowsWhoLives(t *testing.T) {
	l := NewLedger()
	r := &Report{Vantage: Vantage{Name: "pop:fra1"}, Incarnation: 1, Sequence: 1, Full: true}
	l.Take(r, second(0))
	l.Take(r, second(5)) // replayed: a sign of life of somebody else
	if heard, ok := l.Heard("pop:fra1"); !ok || !heard.Equal(second(0)) {
		t.Errorf("heard at %v, want the first time", heard)
	}
	if got := l.Reports(func(_ string, heard time.Time) bool { return heard.After(second(0)) }); len(got) != 0 {
		t.Errorf("got reports of the dead: %v", got)
	}
	l.Retain(func(string) bool { return false })
	if _, ok := l.Heard("pop:fra1"); ok {
		t.Error("it was not forgotten")
	}
}
