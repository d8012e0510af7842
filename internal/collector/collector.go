// Package collector has the garbage collector run less often while a program's heap is small: collections cost a share of the processor
// that depends on how fast memory is allocated and how much room there is, and a small heap leaves little.
package collector

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much room a small heap is given: at least this, as long as that is no more than some times what is alive.
const (
	room        = 64 << 20
	mostPercent = 400
	lookEach    = time.Second
)

// Run adapts GOGC to what is alive on the heap, until ctx ends: so many percent that there is room for 64 MiB, in 100..400. With GOGC in the
// environment it does nothing.
func Run(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return ctx.Err()
	}
	look := time.NewTicker(lookEach)
	defer look.Stop()
	present := 100
	defer debug.SetGCPercent(100)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(live)
		if wanted := percent(live[0].Value.Uint64()); wanted != present {
			debug.SetGCPercent(wanted)
			present = wanted
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// percent returns the GOGC for so many bytes that are alive, in steps of 25.
func percent(live uint64) int {
	if live == 0 { // nothing was collected yet
		return mostPercent
	}
	return int(min(mostPercent, max(100, room*100/live/25*25)))
}
