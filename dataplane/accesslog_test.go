package dataplane

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// runLog runs an access log until the returned function is called.
func runLog(t *testing.T, o AccessLogOptions) (l *AccessLog, stop func()) {
	t.Helper()
	l, err := OpenAccessLog(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func TestAccessLogLine(t *testing.T) {
	var out bytes.Buffer
	l, stop := runLog(t, AccessLogOptions{Path: "-", Stdout: &out, Sample: 1})
	client := netip.MustParseAddrPort("192.0.2.1:1234")
	at := time.Date(2026, 11, 26, 12, 0, 0, 5e6, time.FixedZone("", 3600))
	l.Write(Access{
		Time: at, PoP: "sin1", Service: host, Remote: client, Protocol: "h3", Status: 202, ID: "sin1.abc", KeyID: "abcdefgh", Bytes: 42,
		Queue: 12 * time.Microsecond, Body: time.Millisecond, Spool: 1234567, Total: 3 * time.Millisecond, Cluster: "ap", Trace: "4bf9",
	})
	l.Write(Access{Time: at, PoP: "sin1", Remote: client, Protocol: "http/1.1", Status: 421, Detail: "host \"a\nb\xff\"" + strings.Repeat("x", 1000)})
	stop()
	want := `{"time":"2026-11-26T11:00:00.005Z","pop":"sin1","remote":"192.0.2.1:1234","protocol":"h3","status":202,` +
		`"service":"intake.isochrone.test","id":"sin1.abc","key_id":"abcdefgh","bytes":42,"queue_ms":0.012,"body_ms":1,"spool_ms":1.235,"total_ms":3,` +
		`"cluster":"ap","trace":"4bf9"}` + "\n" +
		`{"time":"2026-11-26T11:00:00.005Z","pop":"sin1","remote":"192.0.2.1:1234","protocol":"http/1.1","status":421,"bytes":0,` +
		`"detail":"host \"a\nb\"` + strings.Repeat("x", maxAccessDetail-11) + `"}` + "\n"
	want = strings.ReplaceAll(want, "a\nb", `a\nb`)
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if written, dropped := l.Stats(); written != 2 || dropped != 0 {
		t.Errorf("got %d written, %d dropped", written, dropped)
	}
}

// TestAccessLogSampling holds how much is written of what is accepted and of what is refused.
func TestAccessLogSampling(t *testing.T) {
	l, err := OpenAccessLog(AccessLogOptions{Path: "-", Stdout: io.Discard, Sample: 0.1, RefusalsPerSec: 5})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	count := func(status int, at time.Time) (n int) {
		for range 10_000 {
			if l.Wants(status, at) {
				n++
			}
		}
		return n
	}
	if got := count(202, now); got < 800 || got > 1200 { // six standard deviations are 180
		t.Errorf("%d of 10000 accepted ones, want about 1000", got)
	}
	for _, test := range []struct {
		status, want int
		after        time.Duration
	}{{401, 5, 0}, {401, 0, 0}, {503, 5, 0}, {401, 2, 400 * time.Millisecond}, {500, 5, 0}, {599, 5, 0}, {600, 0, 0}, {999, 0, 0}, {1 << 40, 0, 0}} {
		if got := count(test.status, now.Add(test.after)); got != test.want {
			t.Errorf("%d, %v later: got %d, want %d", test.status, test.after, got, test.want)
		}
	}
	for _, share := range []float64{-1, 1.5} {
		if _, err := OpenAccessLog(AccessLogOptions{Path: "-", Sample: share}); err == nil {
			t.Errorf("a share of %v is taken", share)
		}
	}
	if l, err := OpenAccessLog(AccessLogOptions{}); l != nil || err != nil || l.Wants(202, now) {
		t.Errorf("got %v, %v where none is asked for", l, err)
	}
}

// TestAccessLogNeverWaits writes more than is taken away.
func TestAccessLogNeverWaits(t *testing.T) {
	var out bytes.Buffer
	l, err := OpenAccessLog(AccessLogOptions{Path: "-", Stdout: &out, Sample: 1, Queue: 10})
	if err != nil {
		t.Fatal(err)
	}
	for range 25 {
		l.Write(Access{Status: 202})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ended); err != nil {
		t.Fatal(err)
	}
	if written, dropped := l.Stats(); written != 10 || dropped != 15 || strings.Count(out.String(), "\n") != 10 {
		t.Errorf("got %d written, %d dropped:\n%s", written, dropped, out.String())
	}
}

// TestAccessLogIsRotated renames the file and has it opened anew; and one that cannot be.
func TestAccessLogIsRotated(t *testing.T) {
	dir := t.TempDir()
	folder, path := filepath.Join(dir, "log"), filepath.Join(dir, "log", "access.log")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	l, stop := runLog(t, AccessLogOptions{Path: path, Sample: 1})
	lines := func(path string) int {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil || object["status"] != 202.0 {
				t.Errorf("line %s: %v", line, err)
			}
		}
		return strings.Count(string(text), "\n")
	}
	await := func(what string, check func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !check(); <-time.After(time.Millisecond) { // between two looks at a condition
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	l.Write(Access{Status: 202})
	await("the first line", func() bool { return lines(path) == 1 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Write(Access{Status: 202})
	await("the second line, in the renamed file", func() bool { return lines(path+".1") == 2 })
	l.Reopen()
	await("a new file", func() bool { _, err := os.Stat(path); return err == nil })
	l.Write(Access{Status: 202})
	await("the third line, in the new file", func() bool { return lines(path) == 1 })

	if err := os.Rename(folder, folder+"-away"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	await("it to be taken", func() bool { return len(l.reopen) == 0 })
	l.Write(Access{Status: 202})
	stop()
	if got := lines(filepath.Join(folder+"-away", "access.log")); got != 2 {
		t.Errorf("%d lines in the file that it goes on with, want 2", got)
	}
	if written, dropped := l.Stats(); written != 4 || dropped != 0 {
		t.Errorf("got %d written, %d dropped", written, dropped)
	}
}

// TestAccessLogOnAFullDisk counts what is lost and goes on.
func TestAccessLogOnAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	l, stop := runLog(t, AccessLogOptions{Path: "/dev/full", Sample: 1})
	for range 3 {
		l.Write(Access{Status: 202})
	}
	stop()
	if written, dropped := l.Stats(); written != 0 || dropped != 3 {
		t.Errorf("got %d written, %d dropped", written, dropped)
	}
}

func BenchmarkAccessLogNotSampled(b *testing.B) {
	l, err := OpenAccessLog(AccessLogOptions{Path: "-", Stdout: io.Discard, Sample: 0})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	for name, status := range map[string]int{"accepted": 202, "refused": 401} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Wants(status, now)
			}
		})
	}
}
