package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
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
		quotas: quotas, window: window, keys: map[string]string{}, accepted: map[string]quotaAccepted{}, asked: map[keyInWindow]int{},
		began: map[int64]time.Time{},
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
			faults = append(faults, fmt.Sprintf("%s: in windows without a failure clients were told 202 %d times, could have been %d times", key, used, could))
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
