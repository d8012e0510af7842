package tokenbucket

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTake(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	taken := func(b *Bucket, at time.Time, tries int) (n int) {
		for range tries {
			if b.Take(at) {
				n++
			}
		}
		return n
	}
	b := New(10, 5)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 5}, {0, 0}, {99 * time.Millisecond, 0}, {100 * time.Millisecond, 1}, {400 * time.Millisecond, 3}, {time.Hour, 5}, {-time.Hour, 5}} {
		if got := taken(b, now.Add(step.after), 100); got != step.want {
			t.Errorf("after %v: got %d, want %d", step.after, got, step.want)
		}
	}
	if got := taken(New(0, 5), now, 10); got != 0 {
		t.Errorf("at no rate: got %d", got)
	}
	if got := taken(New(1e12, 1), now, 10); got != 1 {
		t.Errorf("at a rate above the clock's: got %d", got)
	}
}

func TestConcurrently(t *testing.T) {
	b, now := New(1, 1000), time.Now()
	var taken atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if b.Take(now) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := taken.Load(); got != 1000 {
		t.Errorf("got %d, want 1000", got)
	}
}
