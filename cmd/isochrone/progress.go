package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar on a terminal for what takes longer than a moment.
type progress struct {
	out    io.Writer // nil draws nothing
	what   string
	begun  time.Time
	drawn  time.Time
	length int // of what is drawn
}

// Times and size of a bar.
const (
	progressAfter    = 500 * time.Millisecond
	progressInterval = 100 * time.Millisecond
	progressWidth    = 30
)

// newProgress returns a bar, which draws nothing where out is no terminal.
func newProgress(out io.Writer, what string) *progress {
	p := &progress{what: what, begun: time.Now()}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.out = out
		}
	}
	return p
}

// at draws that so much of all is done.
func (p *progress) at(done, of int64) {
	if p.out == nil || of <= 0 {
		return
	}
	now := time.Now()
	if now.Sub(p.begun) < progressAfter || now.Sub(p.drawn) < progressInterval {
		return
	}
	p.drawn = now
	line := progressLine(p.what, done, of)
	p.length = max(p.length, len(line))
	fmt.Fprintf(p.out, "\r%s", line)
}

func progressLine(what string, done, of int64) string {
	done = min(max(done, 0), of)
	full := int(float64(done) / float64(of) * progressWidth)
	return fmt.Sprintf("%s [%s%s] %3d %%", what, strings.Repeat("=", full), strings.Repeat(" ", progressWidth-full),
		int(float64(done)/float64(of)*100))
}

// end wipes the bar.
func (p *progress) end() {
	if p.length > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.length))
	}
}
