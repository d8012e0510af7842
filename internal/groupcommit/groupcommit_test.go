package groupcommit

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSharedCommits has 100 callers at once: the first commits alone, the others together, each exactly once.
func TestSharedCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		seen := map[int]int{}
		g := New(func(items []int) error {
			time.Sleep(time.Millisecond)
			sizes = append(sizes, len(items))
			for _, item := range items {
				seen[item]++
			}
			return nil
		})
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				if err := g.Do(i); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if len(sizes) > 2 || len(seen) != 100 { // one if all came before the first began
			t.Errorf("got commits of %v items, %d different ones; want 2 commits at most", sizes, len(seen))
		}
		for item, times := range seen {
			if times != 1 {
				t.Errorf("item %d was committed %d times", item, times)
			}
		}
	})
}

// TestErrorIsThatOfOneBatch has every other commit fail: each caller gets the result of its own.
func TestErrorIsThatOfOneBatch(t *testing.T) {
	failure := errors.New("disk on fire")
	var commits, failed, refused atomic.Int64
	g := New(func(items []int) error {
		if commits.Add(1)%2 == 0 {
			failed.Add(int64(len(items)))
			return failure
		}
		return nil
	})
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() {
			if g.Do(i) == failure {
				refused.Add(1)
			}
		})
	}
	callers.Wait()
	if failed.Load() != refused.Load() {
		t.Errorf("%d items failed, %d callers were told", failed.Load(), refused.Load())
	}
}
