package health

import (
	"testing"
	"time"
)

var (
	epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	sin1  = Target{PoP, "sin1"}
)

func second(i int) time.Time { return epoch.Add(time.Duration(i) * time.Second) }

// seen has a watcher see one observation a second: + success, - failure, p and n those of real traffic, l a late probe, . nothing.
func seen(w *Watcher, from int, what string) (changes string) {
	for i, c := range what {
		o := Observation{Target: sin1, At: second(from + i), Took: 20 * time.Millisecond, Reason: string(c)}
		changed := false
		switch c {
		case '+', 'p':
			o.OK, o.Passive = true, c == 'p'
			changed = w.Observe(o)
		case '-', 'n':
			o.Code, o.Passive = Timeout, c == 'n'
			changed = w.Observe(o)
		case 'l':
			changed = w.Late(sin1, o.At)
		}
		if changed {
			changes += "!"
		} else {
			changes += "."
		}
	}
	return changes
}

func TestWatcher(t *testing.T) {
	for _, test := range []struct {
		name, seen, changes string
		want                Status
		since               int
		suspects            bool
	}{
		{"nothing but one failure", "-", "!", Unknown, 0, true},
		{"first success", "+", "!", Up, 0, false},
		{"failure and success", "-+", "!!", Up, 1, false},
		{"failures from the start", "--", "!!", Down, 1, false},
		{"one failure of one that is up", "+-", "!!", Up, 0, true},
		{"and a success", "+-+", "!!!", Up, 0, false},
		{"two in a row", "+--", "!!!", Down, 2, false},
		{"more change nothing", "+----", "!!!..", Down, 2, false},
		{"two, but not in a row", "+-+-", "!!!!", Up, 0, true},
		{"one success of one that is down", "--+", "!!.", Down, 1, false},
		{"back after two", "--++", "!!.!", Up, 3, false},
		{"back, but not in a row", "--+-+", "!!...", Down, 1, false},
		{"late", "+l", "!!", Up, 0, true},
		{"late, and then there", "+l+", "!!!", Up, 0, false},
		{"late, and then not", "+l--", "!!!!", Down, 3, false},
		{"late when it is suspected already", "+-l", "!!.", Up, 0, true},
		{"real requests fail", "+n", "!!", Up, 0, true},
		{"and fail, and fail", "+nnnn", "!!...", Up, 0, true},
		{"a probe and real requests fail", "+-nn", "!!..", Up, 0, true},
		{"real requests succeed", "--pp", "!!.!", Up, 3, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := NewWatcher(Thresholds{}, Damping{})
			if changes := seen(w, 0, test.seen); changes != test.changes {
				t.Errorf("after %s: got changes %s, want %s", test.seen, changes, test.changes)
			}
			s, _ := w.Statement(sin1, second(len(test.seen)))
			if s.Status != test.want || s.Suspects() != test.suspects || !s.Since.Equal(second(test.since)) {
				t.Errorf("after %s: got %s, suspects %v, since %v; want %s, %v, %v", test.seen, s.Status, s.Suspects(), s.Since, test.want, test.suspects, second(test.since))
			}
		})
	}
}

// TestTraffic has real requests succeed at a target whose probes fail for reasons that requests meet, and for others.
func TestTraffic(t *testing.T) {
	for code, want := range map[Code]Status{
		Timeout: Up, Refused: Up, Reset: Up, Unreachable: Up, Handshake: Up, Answered: Down, Syncing: Down, Lagging: Down, Lonely: Down, Certificate: Down,
	} {
		w := NewWatcher(Thresholds{}, Damping{})
		seen(w, 0, "+")
		for i := range 6 {
			w.Observe(Observation{Target: sin1, At: second(2*i + 1), Code: code, Took: time.Millisecond})
			w.Observe(Observation{Target: sin1, At: second(2*i + 2), OK: true, Passive: true})
		}
		if s, _ := w.Statement(sin1, second(13)); s.Status != want {
			t.Errorf("probes fail by %s while requests succeed: got %s, want %s", code, s.Status, want)
		}
	}
	w := NewWatcher(Thresholds{}, Damping{})
	w.Observe(Observation{Target: sin1, At: second(0), OK: true, Code: Expiring, Reason: "soon"})
	if w.Observe(Observation{Target: sin1, At: second(1), OK: true, Passive: true}) {
		t.Error("requests that succeed are news where a probe has")
	}
	if s, _ := w.Statement(sin1, second(1)); s.Code != Expiring || s.Reason != "soon" {
		t.Errorf("requests took back the warning of a probe: %+v", s)
	}
}

func TestTally(t *testing.T) {
	for _, test := range []struct {
		well, failed uint64
		tells, ok    bool
	}{{0, 0, false, true}, {5, 0, true, true}, {0, 1, true, false}, {9, 1, true, false}, {10, 1, false, false}, {0, 3, true, false}} {
		o, tells := (&Tally{Well: test.well, Failed: test.failed, Failure: "a reset"}).Observation(sin1)
		if tells != test.tells || tells && (o.OK != test.ok || !o.Passive || o.Target != sin1 || !o.OK && o.Code != Traffic) {
			t.Errorf("%d well, %d failed: got %+v, %v", test.well, test.failed, o, tells)
		}
	}
}

func TestWatcherForgets(t *testing.T) {
	w := NewWatcher(Thresholds{}, Damping{})
	seen(w, 0, "+")
	if w.Retain(func(Target) bool { return true }) || len(w.Statements(second(1))) != 1 {
		t.Error("it forgot what it was to keep")
	}
	if !w.Retain(func(Target) bool { return false }) || len(w.Statements(second(1))) != 0 {
		t.Error("it kept what it was to forget")
	}
}

// A probe that was lost on its way fails after one that began later has succeeded: that is no news.
func TestWatcherIsNotConfusedByAnOlderProbe(t *testing.T) {
	w := NewWatcher(Thresholds{}, Damping{})
	seen(w, 0, "+++")
	if w.Observe(Observation{Target: sin1, At: second(3), Took: 2 * time.Second, Code: Timeout}) {
		t.Error("a probe that began before the last that succeeded made a suspicion")
	}
}

func TestDamping(t *testing.T) {
	w := NewWatcher(Thresholds{}, Damping{})
	seen(w, 0, "+--++--++--++") // down three times in twelve seconds: below the threshold by what decayed
	if s, _ := w.Statement(sin1, second(13)); s.Suppressed || s.Status != Up {
		t.Fatalf("after three falls: got %+v", s)
	}
	if _, ok := w.Wakes(second(13)); ok {
		t.Error("it wakes without a suppression")
	}
	seen(w, 13, "--++")
	s, _ := w.Statement(sin1, second(17))
	if !s.Suppressed || s.Status != Down || s.Code != Flapping || !s.Since.Equal(second(14)) {
		t.Fatalf("after four falls: got %+v", s)
	}
	wakes, ok := w.Wakes(second(17))
	if held := wakes.Sub(second(14)); !ok || held < 100*time.Second || held > 120*time.Second {
		t.Errorf("it is held down for %v, want a little less than two half-lives", held)
	}
	if s, _ := w.Statement(sin1, wakes.Add(-time.Millisecond)); !s.Suppressed {
		t.Error("it is up before its time")
	}
	if s, _ := w.Statement(sin1, wakes); s.Status != Up || s.Suppressed || !s.Since.Equal(wakes) {
		t.Errorf("after its time: got %+v", s)
	}
	flapping := NewWatcher(Thresholds{}, Damping{})
	changes := 0
	for i := range 900 { // an hour
		for _, c := range seen(flapping, 4*i, "--++") {
			if c == '!' {
				changes++
			}
		}
	}
	if changes > 20 {
		t.Errorf("an hour of flapping was told %d times", changes)
	}
	wakes, _ = flapping.Wakes(second(3600))
	if held := wakes.Sub(second(3600)); held > 10*time.Minute {
		t.Errorf("it is held down for %v more", held)
	}
}

func TestTimeout(t *testing.T) {
	for _, test := range []struct {
		name          string
		took          []time.Duration
		timeout, late time.Duration
	}{
		{"nothing known", nil, time.Second, 500 * time.Millisecond},
		{"near", repeat(20*time.Millisecond, 64), 300 * time.Millisecond, 240 * time.Millisecond},
		{"middle", repeat(200*time.Millisecond, 64), 600 * time.Millisecond, 480 * time.Millisecond},
		{"far", repeat(600*time.Millisecond, 64), 1800 * time.Millisecond, 950 * time.Millisecond},
		{"farthest", repeat(time.Second, 64), 2 * time.Second, 1350 * time.Millisecond},
		{"near, with a lost packet now and then", append(repeat(20*time.Millisecond, 62), 900*time.Millisecond, 900*time.Millisecond), time.Second, 370 * time.Millisecond},
	} {
		w := NewWatcher(Thresholds{}, Damping{})
		for i, took := range test.took {
			w.Observe(Observation{Target: sin1, OK: true, Took: took, At: second(i)})
		}
		if timeout, late := w.Timeout(sin1), w.LateAfter(sin1); timeout != test.timeout || late != test.late {
			t.Errorf("%s: got %v, late after %v; want %v, %v", test.name, timeout, late, test.timeout, test.late)
		}
		if other := w.Timeout(Target{PoP, "new"}); other != test.timeout {
			t.Errorf("%s: got %v for a target that has no history, want %v, by all the others", test.name, other, test.timeout)
		}
	}
}

func repeat(d time.Duration, n int) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = d
	}
	return all
}
