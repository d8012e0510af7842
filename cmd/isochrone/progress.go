package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// When a bar is shown first, and how often anew. What is over sooner needs none.
const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
	progressWidth = 24 // columns of the bar itself
)

// progress shows on a terminal how far a long command is, and how long it will still take. Elsewhere it shows nothing. It is safe for
// concurrent use, and a nil progress does nothing.
type progress struct {
	out   io.Writer
	what  string
	shows func(n int64) string // a number of what is counted
	total atomic.Int64         // 0 if it is not known
	done  atomic.Int64
	began time.Time
	stop  func() // once
	over  chan struct{}
	ended sync.WaitGroup
}

// startProgress begins to show how much of a total is done; a total of 0 is one that is not known. The caller ends it.
func startProgress(out io.Writer, what string, total int64, shows func(int64) string) *progress {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return newProgress(out, what, total, shows)
}

func newProgress(out io.Writer, what string, total int64, shows func(int64) string) *progress {
	p := &progress{out: out, what: what, shows: shows, began: time.Now(), over: make(chan struct{})}
	p.total.Store(total)
	p.stop = sync.OnceFunc(func() { close(p.over) })
	p.ended.Go(p.draw)
	return p
}

// add tells that n more are done.
func (p *progress) add(n int64) {
	if p != nil {
		p.done.Add(n)
	}
}

// at tells that so much of all is done.
func (p *progress) at(done, all int64) {
	if p != nil {
		p.total.Store(all)
		p.done.Store(done)
	}
}

// end takes the bar away, so that something else can be printed. It may be called again.
func (p *progress) end() {
	if p != nil {
		p.stop()
		p.ended.Wait()
	}
}

// draw draws the bar until it is ended.
func (p *progress) draw() {
	wait := time.NewTimer(progressAfter)
	defer wait.Stop()
	shown := false
	for {
		select {
		case <-wait.C:
			fmt.Fprintf(p.out, "\r%s\x1b[K", p.line(time.Since(p.began)))
			shown = true
			wait.Reset(progressEvery)
		case <-p.over:
			if shown {
				io.WriteString(p.out, "\r\x1b[K")
			}
			return
		}
	}
}

// line is what is shown after some time.
func (p *progress) line(elapsed time.Duration) string {
	done, total := p.done.Load(), p.total.Load()
	if total <= 0 {
		return fmt.Sprintf("%s: %s, %v", p.what, p.shows(done), elapsed.Round(time.Second))
	}
	share := min(1, float64(done)/float64(total))
	full := int(share * progressWidth)
	line := fmt.Sprintf("%s [%s%s] %3.0f %% of %s", p.what, strings.Repeat("#", full), strings.Repeat(".", progressWidth-full), 100*share, p.shows(total))
	if share > 0.01 { // earlier it is a guess
		left := time.Duration(float64(elapsed) * (1 - share) / share)
		line += fmt.Sprintf(", %v left", max(time.Second, left.Round(time.Second)))
	}
	return line
}

// counted shows numbers of things.
func counted(unit string) func(int64) string {
	return func(n int64) string { return fmt.Sprintf("%d %s", n, unit) }
}

// octets shows sizes.
func octets(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d octets", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// readProgress is a file whose reading is shown.
type readProgress struct {
	io.ReadSeeker
	*progress
}

// Read implements io.Reader.
func (r readProgress) Read(b []byte) (int, error) {
	n, err := r.ReadSeeker.Read(b)
	r.add(int64(n))
	return n, err
}

// writeProgress is a destination whose writing is shown.
type writeProgress struct {
	io.Writer
	*progress
}

// Write implements io.Writer.
func (w writeProgress) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.add(int64(n))
	return n, err
}
