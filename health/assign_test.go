package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world returns so many vantages and as many PoPs, which are the same nodes, in the regions in turn.
func world(n int, regions ...string) (targets []Target, vantages []Vantage) {
	for i := range n {
		name := fmt.Sprintf("p%03d", i)
		targets = append(targets, Target{PoP, name})
		v := Vantage{Name: "pop:" + name}
		if len(regions) > 0 {
			v.Region = regions[i%len(regions)]
		}
		vantages = append(vantages, v)
	}
	return targets, vantages
}

func TestAssign(t *testing.T) {
	for _, test := range []struct {
		name    string
		n       int
		regions []string
		want    int
	}{
		{"one, which is the target", 1, nil, 0},
		{"two", 2, nil, 1},
		{"three", 3, nil, 2},
		{"five", 5, nil, 3},
		{"thirty without regions", 30, nil, 7},
		{"thirty in one region", 30, []string{"EU"}, 7},
		{"thirty in three", 30, []string{"EU", "NA", "AS"}, 9},
		{"three hundred in six", 300, []string{"EU", "NA", "AS", "SA", "OC", "AF"}, 19},
		{"eight in four, none of which has three without its own", 8, []string{"EU", "NA", "AS", "SA"}, 7},
	} {
		targets, vantages := world(test.n, test.regions...)
		for _, target := range targets {
			got := Assign(target, vantages, 7)
			if len(got) != test.want {
				t.Errorf("%s: %v has %d vantages, want %d", test.name, target, len(got), test.want)
			}
			shuffled := slices.Clone(vantages)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if !slices.Equal(got, Assign(target, shuffled, 7)) {
				t.Errorf("%s: the order of vantages matters", test.name)
			}
			of := map[string]int{}
			for i, v := range got {
				of[v.Region]++
				if v.Name == target.node() {
					t.Errorf("%s: %v judges itself", test.name, target)
				}
				if i > 0 && len(test.regions) > 2 && v.Region == got[i-1].Region {
					t.Errorf("%s: two turns of %s in a row: %v", test.name, v.Region, got)
				}
			}
			for region, n := range of {
				if region != "" && test.n >= 30 && n < 3 {
					t.Errorf("%s: %s has %d of %d", test.name, region, n, len(got))
				}
			}
		}
	}
}

// When a vantage goes, those targets alone that it probed get another one, and keep the others.
func TestAssignMovesLittle(t *testing.T) {
	targets, vantages := world(60, "EU", "NA", "AS")
	gone := vantages[17]
	without := slices.DeleteFunc(slices.Clone(vantages), func(v Vantage) bool { return v == gone })
	for _, target := range targets {
		before, after := Assign(target, vantages, 7), Assign(target, without, 7)
		lost := 0
		for _, v := range before {
			if !slices.Contains(after, v) {
				lost++
			}
		}
		want := 0
		if slices.Contains(before, gone) {
			want = 1
		}
		if lost != want {
			t.Errorf("%v lost %d vantages, want %d", target, lost, want)
		}
	}
}

// calm lets schedules run for a minute in which nothing happens, and returns the times at which targets were probed.
func calm(n int, offset func(i int) time.Duration, regions ...string) (probes map[Target][]time.Duration, targets []Target) {
	targets, vantages := world(n, regions...)
	targets = targets[:min(n, 3)] // the others are like them
	probes = map[Target][]time.Duration{}
	for i, v := range vantages {
		s := NewSchedule(v.Name, Timing{})
		start := epoch.Add(offset(i))
		s.Assign(targets, vantages, start)
		for now := start; now.Before(start.Add(2 * time.Minute)); {
			due, again := s.Due(now)
			for _, target := range due {
				if at := now.Sub(start); at > time.Minute {
					probes[target] = append(probes[target], at)
				}
			}
			if again.IsZero() {
				break
			}
			now = again
		}
	}
	return probes, targets
}

func TestProbeLoadIsConstant(t *testing.T) {
	for _, n := range []int{3, 30, 300} {
		for _, clocks := range []struct {
			name   string
			offset func(int) time.Duration
			gap    time.Duration
		}{
			{"right", func(int) time.Duration { return 0 }, 1100 * time.Millisecond},
			{"wrong", func(i int) time.Duration { return time.Duration(hash(fmt.Sprint(i)) % uint64(time.Hour)) }, 20 * time.Second},
		} {
			probes, targets := calm(n, clocks.offset, "EU", "NA", "AS", "SA", "OC", "AF")
			for _, target := range targets {
				times := slices.Sorted(slices.Values(probes[target]))
				if len(times) < 50 || len(times) > 70 {
					t.Errorf("%d nodes, clocks %s: %v was probed %d times a minute, want 60", n, clocks.name, target, len(times))
				}
				for i := range len(times) - 1 {
					if gap := times[i+1] - times[i]; gap > clocks.gap {
						t.Errorf("%d nodes, clocks %s: nobody probed %v for %v", n, clocks.name, target, gap)
					}
				}
			}
		}
	}
}
