package groupcommit

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSharedCommits has 100 callers come while a commit is under way: the next one is of all of them, in one piece, each item once. Then a
// leader waits a moment for more, since many waited the last time; one who had few with him does not.
func TestSharedCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var commits [][]int
		gate := make(chan struct{})
		g := New(func(items []int) error {
			commits = append(commits, slices.Clone(items))
			<-gate
			return nil
		})
		var callers sync.WaitGroup
		call := func(item int) {
			callers.Go(func() {
				if err := g.Do(item); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		call(0)
		for i := range 100 {
			call(1 + i)
		}
		close(gate)
		callers.Wait()
		began := time.Now()
		call(101) // leads, and waits
		call(102)
		callers.Wait()
		if took := time.Since(began); took != joinFor {
			t.Errorf("a leader waited %s after a commit of 100, want %s", took, joinFor)
		}
		call(103)
		callers.Wait()
		if took := time.Since(began); took != joinFor {
			t.Errorf("a leader waited %s after a commit of two, want no waiting", took-joinFor)
		}
		next := 0
		for i, want := range []int{1, 100, 2, 1} {
			if i >= len(commits) || len(commits[i]) != want {
				t.Fatalf("got commits of %v, want 1, 100, 2 and 1 items", commits)
			}
			for _, item := range commits[i] {
				if item != next {
					t.Fatalf("got item %d where %d is due", item, next)
				}
				next++
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
			for range 2 { // so that there are two commits at least
				if g.Do(i) == failure {
					refused.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if failed.Load() != refused.Load() {
		t.Errorf("%d items failed, %d callers were told", failed.Load(), refused.Load())
	}
	if failed.Load() == 0 {
		t.Error("no commit failed, so nothing was shown")
	}
}
