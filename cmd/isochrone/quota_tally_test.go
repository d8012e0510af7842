package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// quotaTally counts what clients were told 202 for, and what clusters have, by the number of the window. It knows nothing of the counters of
// the program. It may be used concurrently.
type quotaTally struct {
	quotas map[string]int // by key
	window time.Duration  // the least that one may last

	mu       sync.Mutex
	keys     map[string]string        // that payloads were posted with, by hash
	accepted map[string]quotaAccepted // by request id
	asked    map[keyInWindow]int      // posts that were answered 202 or 429
	began    map[int64]time.Time      // when the first 202 of a window came
	newest   int64
	faults   []string
}

type keyInWindow struct {
	key    string
	window int64
}

// quotaAccepted is what a 202 said of a post.
type quotaAccepted struct {
	hash   string
	window int64
	pop    string
}

func newQuotaTally(quotas map[string]int, window time.Duration) *quotaTally {
	return &quotaTally{
		quotas: quotas, window: window, keys: map[string]string{}, accepted: map[string]quotaAccepted{}, asked: map[keyInWindow]int{}, began: map[int64]time.Time{},
	}
}

// sent notes a payload that will be posted.
func (q *quotaTally) sent(key, hash string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.keys[hash] = key
}

// took notes a 202.
func (q *quotaTally) took(id string, a quotaAccepted, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if before, ok := q.accepted[id]; ok {
		q.faults = append(q.faults, fmt.Sprintf("two answers have the id %s: %v and %v", id, before, a))
	}
	q.accepted[id] = a
	if q.began[a.window].IsZero() {
		q.began[a.window] = now
	}
	q.newest = max(q.newest, a.window)
	q.asked[keyInWindow{q.keys[a.hash], a.window}]++
}

// refused notes a 429.
func (q *quotaTally) refused(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked[keyInWindow{key, q.newest}]++
}

// now returns the number of the newest window that a 202 told.
func (q *quotaTally) now() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.newest
}

// of returns how many posts a PoP has accepted in a window or later.
func (q *quotaTally) of(pop string, window int64) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.accepted {
		if a.pop == pop && a.window >= window {
			n++
		}
	}
	return n
}

// demanded reports whether there was more demand in a window than there was of all quotas.
func (q *quotaTally) demanded(window int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key, quota := range q.quotas {
		if 50*q.asked[keyInWindow{key, window}] <= 51*quota {
			return false
		}
	}
	return true
}

// missing returns how many of the accepted posts are not in the clusters' logs.
func (q *quotaTally) missing(log []string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	missing := map[string]bool{}
	for id := range q.accepted {
		missing[id] = true
	}
	for _, line := range log {
		id, _, _ := strings.Cut(line, " ")
		delete(missing, id)
	}
	return len(missing)
}

// counts are distinct ids by key and window.
type counts map[keyInWindow]int

// check holds the answers, and the lines of all clusters' logs, to the quotas. In clean windows, which no failure has touched, and in which
// there was more demand than quota, nearly all of it is to be used.
func (q *quotaTally) check(log []string, clean []int64) (faults []string, told, reached counts) {
	q.mu.Lock()
	defer q.mu.Unlock()
	faults = slices.Clone(q.faults)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	told, reached = counts{}, counts{}
	for _, a := range q.accepted {
		told[keyInWindow{q.keys[a.hash], a.window}]++
	}
	have := map[string]quotaAccepted{}
	for _, line := range log {
		fields := strings.Fields(line) // id sha256 octets w=N
		if len(fields) != 4 || !strings.HasPrefix(fields[3], "w=") {
			fault("a cluster's log has the line %q", line)
			continue
		}
		id, hash := fields[0], fields[1]
		window, err := strconv.ParseInt(fields[3][2:], 10, 64)
		key, known := q.keys[hash]
		if err != nil || !known {
			fault("nobody has sent what a cluster's log has: %q", line)
			continue
		}
		before, again := have[id]
		if again && (before.hash != hash || before.window != window) {
			fault("%s has reached clusters in windows %d and %d, with the hashes %s and %s", id, before.window, window, before.hash, hash)
		}
		if have[id] = (quotaAccepted{hash: hash, window: window}); !again {
			reached[keyInWindow{key, window}]++
		}
	}
	for id, a := range q.accepted {
		switch got, ok := have[id]; {
		case !ok:
			fault("%s was accepted in window %d, and has not reached a cluster", id, a.window)
		case got.window != a.window || got.hash != a.hash:
			fault("%s was accepted in window %d with the hash %s, and reached a cluster in window %d with %s", id, a.window, a.hash, got.window, got.hash)
		}
	}
	for _, c := range []struct {
		what string
		counts
	}{{"clients were told 202", told}, {"clusters have", reached}} {
		for at, n := range c.counts {
			if n > q.quotas[at.key] {
				fault("window %d of %s: %s %d times, the quota is %d", at.window, at.key, c.what, n, q.quotas[at.key])
			}
		}
	}
	faults = append(faults, q.unused(told, clean)...)
	faults = append(faults, q.early()...)
	slices.Sort(faults)
	return faults, told, reached
}

// unused reports quotas that were not used, though there was demand: less than nine tenths of what there was in all clean windows.
func (q *quotaTally) unused(told counts, clean []int64) (faults []string) {
	for key, quota := range q.quotas {
		used, could := 0, 0
		for _, window := range clean {
			if at := (keyInWindow{key, window}); 50*q.asked[at] > 51*quota {
				used, could = used+told[at], could+quota
			}
		}
		if could == 0 || 10*used < 9*could {
			faults = append(faults, fmt.Sprintf("%s: in the windows without a failure clients were told 202 %d times, could have been %d times", key, used, could))
		}
	}
	return faults
}

// early reports windows that were opened too soon. What a client saw may be late by a moment: one window is allowed for that.
func (q *quotaTally) early() []string {
	first := q.newest
	for window := range q.began {
		first = min(first, window)
	}
	if n, passed := q.newest-first, q.began[q.newest].Sub(q.began[first]); passed < time.Duration(n-1)*q.window {
		return []string{fmt.Sprintf("%d windows were opened in %v, each lasts %v", n, passed, q.window)}
	}
	return nil
}

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
		{"a grant used in the next window", func(l *logs) { l.lines[quota-1] = strings.Replace(l.lines[quota-1], "w=1", "w=2", 1) }, "window 2 of key: clusters have 11"},
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
