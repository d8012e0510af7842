package spool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReturnAt puts items off: each can be taken when it is due, and not before, while others go on.
func TestReturnAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, newCrashDisk(1), Options{})
		began, taken := time.Now(), map[string]*Item{}
		for _, id := range []string{"pop.a", "pop.b", "pop.c", "pop.d"} {
			if err := s.Append(envelope(id, []byte(id)), nil); err != nil {
				t.Fatal(err)
			}
			item, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			taken[id] = item
		}
		s.ReturnAt(taken["pop.c"], began.Add(30*time.Second))
		s.ReturnAt(taken["pop.a"], began.Add(10*time.Second))
		s.ReturnAt(taken["pop.d"], began.Add(time.Hour))
		s.ReturnAt(taken["pop.b"], began.Add(20*time.Second))
		s.Acknowledge(taken["pop.b"]) // by another who had it: it is not to come back
		if err := s.Append(envelope("pop.new", nil), nil); err != nil {
			t.Fatal(err)
		}
		next := func(want string, at, within time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			item, err := s.Next(ctx)
			switch {
			case want == "":
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, %v, want nothing", item, err)
				}
			case err != nil || item.ID != want || time.Since(began) != at:
				t.Errorf("got %v, %v after %v, want %s after %v", item, err, time.Since(began), want, at)
			default:
				if attempts := map[bool]int{true: 1}[want != "pop.new"]; item.Attempts != attempts || string(item.Body) == "" && want != "pop.new" {
					t.Errorf("%s: got %d attempts, want %d; body %q", want, item.Attempts, attempts, item.Body)
				}
			}
		}
		next("pop.new", 0, time.Minute)
		next("pop.a", 10*time.Second, time.Minute)
		next("pop.c", 30*time.Second, time.Minute)
		next("", 0, time.Minute)
		s.Hasten()
		next("pop.d", 90*time.Second, time.Minute)

		s.ReturnAt(taken["pop.a"], time.Now().Add(time.Hour)) // nothing fires after the end
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour)
	})
}
