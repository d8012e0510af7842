package quota

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// breakable is a store that can be away.
type breakable struct {
	Store
	away atomic.Bool
}

func (b *breakable) Exchange(ctx context.Context, r Request) (Answer, error) {
	if b.away.Load() {
		return Answer{}, errors.New("etcd is away")
	}
	return b.Store.Exchange(ctx, r)
}

// running runs a ledger until the returned function is called.
func running(l *Ledger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	return func() { cancel(); <-done }
}

// TestOnePoPGetsTheWholeQuota has one PoP ask for all quotas, in three windows that follow each other, and a client wait as it is told.
func TestOnePoPGetsTheWholeQuota(t *testing.T) {
	for _, limit := range []int64{1, 2, 7, 1000} {
		synctest.Test(t, func(t *testing.T) {
			l := New(Config{PoP: "sin1", Store: far{NewMemory(1), 200 * time.Millisecond}})
			defer running(l)()
			for window := int64(1); window <= 3; window++ {
				var got int64
				for {
					d, err := l.Admit(t.Context(), "key", limit, time.Now())
					if err != nil || d.Window != window || d.Remaining > limit-got || d.Reset > Window {
						t.Fatalf("quota %d, window %d, after %d: %+v, %v", limit, window, got, d, err)
					}
					if d.Admitted {
						got++
						continue
					}
					if d.RetryAfter <= 0 || d.RetryAfter > Window+margin {
						t.Errorf("retry after %v", d.RetryAfter)
					}
					if got != limit && d.RetryAfter < Window/2 {
						break
					}
					if got == limit {
						time.Sleep(d.RetryAfter)
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				if got != limit {
					t.Errorf("quota %d, window %d: admitted %d", limit, window, got)
				}
			}
		})
	}
}

// TestStoreAway has a PoP go on with slices that it took ahead for two windows, and come back.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &breakable{Store: NewMemory(1)}
		l := New(Config{PoP: "sin1", Store: store})
		defer running(l)()
		const limit = 6400
		for range 165 { // two minutes and three quarters at ten a second
			for range 10 {
				if d, err := l.Admit(t.Context(), "key", limit, time.Now()); err != nil || !d.Admitted {
					t.Fatal(d, err)
				}
			}
			time.Sleep(time.Second)
		}
		store.away.Store(true)
		got, last := map[int64]int{}, error(nil)
		for range 400 {
			d, err := l.Admit(t.Context(), "key", limit, time.Now())
			if last = err; d.Admitted {
				got[d.Window]++
			} else if err != nil && !errors.Is(err, ErrAway) {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2)
		}
		if got[3] < 20 || got[4] != limit/aheadPart || got[5] != limit/aheadPart/2 || len(got) != 3 || last == nil {
			t.Errorf("without the store %v were admitted, and at last %v", got, last)
		}
		store.away.Store(false)
		time.Sleep(Window + 2*time.Second)
		if d, err := l.Admit(t.Context(), "key", limit, time.Now()); err != nil || !d.Admitted {
			t.Error(d, err)
		}
	})
}

// TestLimitChanges has a quota lowered and raised in the middle of a window.
func TestLimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PoP: "sin1", Store: NewMemory(1)})
		defer running(l)()
		spend := func(limit int64) (got int) {
			for {
				d, err := l.Admit(t.Context(), "key", limit, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if d.Admitted {
					got++
				} else if l.account("key").current.Load().spent.Load() >= limit {
					return got
				} else {
					time.Sleep(pause)
				}
			}
		}
		for _, c := range []struct {
			limit int64
			want  int
		}{{10, 10}, {5, 0}, {10, 0}, {25, 15}} {
			if got := spend(c.limit); got != c.want {
				t.Errorf("with a quota of %d: %d more, want %d", c.limit, got, c.want)
			}
		}
	})
}

// TestClosed asks for the quota of a key that the store does not have: it is denied, and not waited for.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PoP: "sin1", Store: closedStore{NewMemory(1)}})
		defer running(l)()
		began := time.Now()
		for range 10 {
			if d, err := l.Admit(t.Context(), "key", 20, time.Now()); err != nil || d.Admitted || d.RetryAfter <= 0 {
				t.Fatal(d, err)
			}
		}
		if passed := time.Since(began); passed > patience {
			t.Errorf("it took %v", passed)
		}
	})
}

// closedStore grants nothing.
type closedStore struct{ Store }

func (c closedStore) Exchange(ctx context.Context, r Request) (Answer, error) {
	answer, err := c.Store.Exchange(ctx, Request{PoP: r.PoP, Open: r.Open})
	for range r.Asks {
		answer.Grants = append(answer.Grants, Granted{Closed: true})
	}
	return answer, err
}

// TestIdleAccountsAreDropped has many keys be used once.
func TestIdleAccountsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PoP: "sin1", Store: NewMemory(1)})
		defer running(l)()
		for i := range 500 {
			if d, err := l.Admit(t.Context(), fmt.Sprint("key", i), 10, time.Now()); err != nil || !d.Admitted {
				t.Fatal(d, err)
			}
		}
		time.Sleep((ahead + 3) * Window)
		l.accounts.Range(func(key, _ any) bool {
			t.Errorf("the account of %v is still there", key)
			return false
		})
	})
}

// loaded is a ledger that has much left.
func loaded(t testing.TB) *Ledger {
	l := New(Config{PoP: "sin1", Store: NewMemory(1)})
	t.Cleanup(running(l))
	if d, err := l.Admit(t.Context(), "key", 1<<40, time.Now()); err != nil || !d.Admitted {
		t.Fatal(d, err)
	}
	l.account("key").current.Load().left.Store(1 << 40)
	return l
}

func TestAdmitAllocatesNothing(t *testing.T) {
	l, now := loaded(t), time.Now()
	if n := testing.AllocsPerRun(1000, func() { _, _ = l.Admit(t.Context(), "key", 1<<40, now) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	l, now := loaded(b), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Admit(b.Context(), "key", 1<<40, now); err != nil || !d.Admitted {
			b.Fatal(d, err)
		}
	}
}
