package spool

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/groupcommit"
)

var compareFor = flag.Duration("compare", 300*time.Millisecond, "how long each run of BenchmarkAgainstBare takes")

// bare is the least that a durable answer costs: a group commit of one write and one fdatasync.
type bare struct {
	file  file
	buf   []byte
	group *groupcommit.Group[[]byte]
}

func newBare(b *testing.B) *bare {
	f, err := folder(b.TempDir()).Create("bare")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	l := &bare{file: f}
	l.group = groupcommit.New(func(batch [][]byte) error {
		l.buf = l.buf[:0]
		for _, record := range batch {
			l.buf = append(l.buf, record...)
		}
		if _, err := l.file.Write(l.buf); err != nil {
			return err
		}
		return l.file.Sync()
	})
	return l
}

// closed has so many callers do something again and again for a while, and returns how long each time took.
func closed(callers int, during time.Duration, do func()) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	var running sync.WaitGroup
	end := time.Now().Add(during)
	for range callers {
		running.Go(func() {
			var own []time.Duration
			for begun := time.Now(); begun.Before(end); {
				do()
				now := time.Now()
				own = append(own, now.Sub(begun))
				begun = now
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	running.Wait()
	return all
}

// arrivals has something done at moments that do not depend on how long it takes, so many times a second on average.
func arrivals(rate float64, during time.Duration, do func()) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	var running sync.WaitGroup
	rng := rand.New(rand.NewPCG(1, 2)) // the same moments for all
	begun := time.Now()
	for at := time.Duration(0); at < during; at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second)) {
		due := begun.Add(at)
		time.Sleep(time.Until(due)) // this is the clock of the arrivals; nothing is waited for
		running.Go(func() {
			do()
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took)
		})
	}
	running.Wait()
	return all
}

func quantiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// BenchmarkAgainstBare compares what a caller of Append waits for, while the envelopes are also forwarded and settled, with a bare
// group commit of the same octets, in turns: with 64 callers, and with arrivals at a tenth of the rate that the spool then has.
//
//	go test ./dataplane/spool -run - -bench AgainstBare -benchtime 1x -compare 3s
func BenchmarkAgainstBare(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "spool"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		var items []*Item
		for {
			var err error
			if items, err = s.Take(ctx, 64, items[:0]); err != nil {
				return
			}
			for _, item := range items {
				s.Delivered(item, "eu")
			}
		}
	})
	defer forwarding.Wait()
	defer cancel()
	l, body, n := newBare(b), make([]byte, 1000), atomic.Int64{}
	record := append(envelope("pop.aaaaaaaaaaaaaaaaaaaaaaaaaa", body).appendTo(nil), make([]byte, recordHeader+contentHeader)...)
	doSpool := func() {
		e := envelope("", body)
		e.ID = fmt.Sprintf("pop.%026d", n.Add(1))
		if err := s.Append(e, nil); err != nil {
			b.Error(err)
		}
	}
	doBare := func() {
		if err := l.group.Do(record); err != nil {
			b.Error(err)
		}
	}
	for b.Loop() {
		var spoolClosed, bareClosed, spoolOpen, bareOpen []time.Duration
		for range 3 {
			bareClosed = append(bareClosed, closed(64, *compareFor, doBare)...)
			spoolClosed = append(spoolClosed, closed(64, *compareFor, doSpool)...)
		}
		rate := float64(len(spoolClosed)) / 3 / compareFor.Seconds() / 10
		for range 3 {
			bareOpen = append(bareOpen, arrivals(rate, *compareFor, doBare)...)
			spoolOpen = append(spoolOpen, arrivals(rate, *compareFor, doSpool)...)
		}
		for _, one := range []struct {
			name string
			took []time.Duration
		}{{"closed, bare ", bareClosed}, {"closed, spool", spoolClosed}, {"open, bare   ", bareOpen}, {"open, spool  ", spoolOpen}} {
			p50, p99 := quantiles(one.took)
			fmt.Fprintf(os.Stderr, "%s %7.0f/s p50 %8v p99 %8v\n", one.name, float64(len(one.took))/3/compareFor.Seconds(), p50, p99)
		}
	}
}
