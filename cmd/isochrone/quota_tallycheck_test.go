package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestQuotaTally has made-up answers and logs checked, good ones and such as a program with a fault would leave.
func TestQuotaTally(t *testing.T) {
	const quota, windows = 10, 5
	type logs struct {
		*quotaTally
		lines []string
	}
	post := func(l *logs, n int, window int64, told bool) (id string) {
		id, hash := fmt.Sprint("sin1.", window, ".", n), fmt.Sprint("hash", window, ".", n)
		l.sent("key", hash)
		if told {
			l.took(id, quotaAccepted{hash, window, "sin1"}, time.Unix(window*60+int64(n), 0))
		}
		l.lines = append(l.lines, fmt.Sprintf("%s %s 100 w=%d", id, hash, window))
		return id
	}
	for _, c := range []struct {
		name string
		harm func(*logs)
		want string // in a fault
	}{
		{"good", func(*logs) {}, ""},
		{"an envelope that came twice", func(l *logs) { l.lines = append(l.lines, l.lines[3]) }, ""},
		{"one more 202", func(l *logs) { post(l, quota, 3, true) }, "window 3 of key: clients were told 202 11 times"},
		{"one more envelope, whose answer was lost", func(l *logs) { post(l, quota, 3, false) }, "window 3 of key: clusters have 11 times"},
		{"a grant used again after a restart", func(l *logs) {
			for n := range 3 {
				post(l, quota+n, windows, true)
			}
		}, "window 5 of key: clients were told 202 13 times"},
		{"a grant used in the next window", func(l *logs) {
			l.lines[quota-1] = strings.Replace(l.lines[quota-1], "w=1", "w=2", 1)
		}, "window 2 of key: clusters have 11"},
		{"another window in the log", func(l *logs) { l.lines[0] = strings.Replace(l.lines[0], "w=1", "w=0", 1) }, "reached a cluster in window 0"},
		{"two windows in the logs", func(l *logs) { l.lines = append(l.lines, strings.Replace(l.lines[0], "w=1", "w=0", 1)) }, "in windows 1 and 0"},
		{"another hash in the log", func(l *logs) { l.lines[0] = strings.Replace(l.lines[0], "hash1.0", "hash1.1", 1) }, "with the hash hash1.0"},
		{"an envelope that is lost", func(l *logs) { l.lines = l.lines[1:] }, "has not reached a cluster"},
		{"an envelope of nobody", func(l *logs) { l.lines = append(l.lines, "sin1.x other 100 w=1") }, "nobody has sent"},
		{"no window", func(l *logs) { l.lines[0] = strings.TrimSuffix(l.lines[0], " w=1") }, "has the line"},
		{"a conflict", func(l *logs) { l.lines = append(l.lines, l.lines[0]+" conflict") }, "has the line"},
		{"an id for two posts", func(l *logs) {
			l.took("sin1.1.0", quotaAccepted{"hash1.0", 1, "fra1"}, time.Unix(100, 0))
		}, "two answers have the id"},
		{"a quota that is not used", func(l *logs) {
			for window := int64(1); window <= windows; window++ {
				delete(l.accepted, fmt.Sprintf("sin1.%d.0", window))
				delete(l.accepted, fmt.Sprintf("sin1.%d.1", window))
			}
		}, "told 202 24 times, could have been 30"},
		{"no demand", func(l *logs) { clear(l.asked) }, "told 202 0 times, could have been 0"},
		{"windows that last half as long", func(l *logs) {
			for window, at := range l.began {
				l.began[window] = time.Unix(at.Unix()/2, 0)
			}
		}, "4 windows were opened in 2m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &logs{quotaTally: newQuotaTally(map[string]int{"key": quota}, time.Minute)}
			for window := int64(1); window <= windows; window++ {
				for n := range quota {
					post(l, n, window, true)
					l.refused("key")
				}
			}
			c.harm(l)
			faults, _, _ := l.check(l.lines, []int64{2, 3, 4})
			if c.want == "" && len(faults) > 0 || c.want != "" && !strings.Contains(strings.Join(faults, "\n"), c.want) {
				t.Errorf("got the faults %q, want %q", faults, c.want)
			}
			if missing := l.missing(l.lines); (missing > 0) != (c.name == "an envelope that is lost") {
				t.Errorf("%d are missing", missing)
			}
		})
	}
}
