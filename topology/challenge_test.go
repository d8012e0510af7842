package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const challengeValue = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"

func TestParseChallenge(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	good := string(MarshalValue(NewChallenge(challengeValue, time.Hour, now)))
	if c, faults := ParseChallenge("intake.example.net", []byte(good)); len(faults) > 0 || c.Value != challengeValue || !c.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("got %+v, %v", c, faults)
	}
	if c := NewChallenge(challengeValue, 1000*time.Hour, now); !c.Expires.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("one for long expires at %v", c.Expires)
	}
	for _, test := range []struct{ name, text, want string }{
		{"Intake.example.net", good, "is not a domain name"},
		{"intake.example.net", strings.Replace(good, challengeValue, challengeValue[1:], 1), "is no digest"},
		{"intake.example.net", strings.Replace(good, challengeValue, `"`+strings.Repeat(`\"`, 43)+`"`, 1), "is no digest"},
		{"intake.example.net", good + "more: 1\n", "more"},
		{"intake.example.net", "schema: 1\nvalue: " + challengeValue + "\n", "expires"},
	} {
		if _, faults := ParseChallenge(test.name, []byte(test.text)); !strings.Contains(fmt.Sprint(faults), test.want) {
			t.Errorf("%s %q: got %v, want a fault with %q", test.name, test.text, faults, test.want)
		}
	}
}

func TestChallengesOfSnapshots(t *testing.T) {
	now, a := time.Unix(1_800_000_000, 0), NewAssembler(nil, 0)
	good := MarshalValue(NewChallenge(challengeValue, time.Hour, now))
	a.Put("acme/challenges/a.example", good)
	a.Put("acme/challenges/b.example", []byte("nonsense"))
	a.Put("acme/store/accounts/x", []byte("nonsense"))
	first := a.Snapshot(1)
	if len(first.Challenges) != 1 || first.Challenges["a.example"] == nil || len(first.Ignored) != 1 {
		t.Errorf("got %v, ignored %v: want a.example alone, and one fault", first.Challenges, first.Ignored)
	}
	if hash := a.Snapshot(1).Hash; hash != NewAssembler(nil, 0).Snapshot(1).Hash {
		t.Error("a challenge changes the hash, which nodes that do not follow challenges have too")
	}
	for i := range MaxChallenges + 5 {
		a.Put(fmt.Sprintf("acme/challenges/n%05d.example", i), good)
	}
	many := a.Snapshot(2)
	if len(many.Challenges) != MaxChallenges || len(many.Ignored) != 1+6 {
		t.Errorf("of %d got %d, and %d faults", MaxChallenges+6, len(many.Challenges), len(many.Ignored))
	}
	if again := a.Snapshot(3); fmt.Sprintf("%p", again.Challenges) != fmt.Sprintf("%p", many.Challenges) {
		t.Error("the map is another one, though nothing has changed")
	}
	a.Delete("acme/challenges/a.example")
	if gone := a.Snapshot(4); gone.Challenges["a.example"] != nil {
		t.Error("a challenge that was deleted is still there")
	}
}

// FuzzChallenge reads what somebody else has put into the store.
func FuzzChallenge(f *testing.F) {
	f.Add("intake.example.net", string(MarshalValue(NewChallenge(challengeValue, time.Hour, time.Unix(1_800_000_000, 0)))))
	f.Add("x", "schema: 9\nvalue: [")
	f.Fuzz(func(t *testing.T, name, text string) {
		if c, faults := ParseChallenge(name, []byte(text)); len(faults) == 0 && (len(c.Value) != 43 || c.Expires.IsZero()) {
			t.Errorf("taken: %+v", c)
		}
	})
}
