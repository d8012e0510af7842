package dataplane

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/internal/tokenbucket"
)

// Access is what the access log tells of one request. Empty fields are left out. It has no secret: of a key, only the id.
type Access struct {
	Time     time.Time // of arrival
	PoP      string
	Service  string         // host name of the service; empty if there is none
	Remote   netip.AddrPort // of the client
	Protocol string         // h3, h2 or http/1.1
	Status   int
	ID       string // of the request, if it was accepted
	KeyID    string // if the key is known
	Probe    bool
	Bytes    int64 // of the body that was received

	Queue, Body, Spool time.Duration // waiting to be admitted (quota, overload); receiving and checking the body; making it safe
	Total              time.Duration

	Cluster string // that is next
	Detail  string // of a refusal, as the client was told
	Trace   string // trace id, if it is recorded
}

// AccessLogOptions say what an AccessLog writes, and where.
type AccessLogOptions struct {
	Path           string       // file to append to; - is Stdout
	Stdout         io.Writer    // default os.Stdout
	Sample         float64      // share of 202s that are written, 0..1
	RefusalsPerSec float64      // of each status that are written; default 10
	Queue          int          // lines that wait to be written; default 4096. What does not fit is dropped and counted
	Log            *slog.Logger // told when lines cannot be written
}

// AccessLog writes lines of JSON about sampled requests. Nil writes none. It may be used concurrently, and nobody waits for it.
type AccessLog struct {
	options   AccessLogOptions
	threshold uint64 // of 2^63 numbers, those below are sampled
	refusals  [600 - 300]*tokenbucket.Bucket
	lines     chan Access
	reopen    chan struct{}
	dropped   atomic.Uint64
	written   atomic.Uint64
	out       io.WriteCloser
}

// OpenAccessLog opens an access log; Run writes it. With no path it returns nil.
func OpenAccessLog(o AccessLogOptions) (*AccessLog, error) {
	if o.Path == "" {
		return nil, nil
	}
	if !(o.Sample >= 0 && o.Sample <= 1) {
		return nil, fmt.Errorf("the share of accepted requests in the access log is %v, which is not in 0..1", o.Sample)
	}
	o.RefusalsPerSec, o.Queue, o.Log = cmp.Or(o.RefusalsPerSec, 10), cmp.Or(o.Queue, 4096), cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	l := &AccessLog{
		options: o, threshold: uint64(o.Sample * math.MaxInt64), lines: make(chan Access, o.Queue), reopen: make(chan struct{}, 1),
	}
	for i := range l.refusals {
		l.refusals[i] = tokenbucket.New(o.RefusalsPerSec, max(1, int(o.RefusalsPerSec)))
	}
	out, err := l.open()
	if err != nil {
		return nil, fmt.Errorf("open the access log: %w", err)
	}
	l.out = out
	return l, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func (l *AccessLog) open() (io.WriteCloser, error) {
	if l.options.Path == "-" {
		var stdout io.Writer = os.Stdout
		if l.options.Stdout != nil {
			stdout = l.options.Stdout
		}
		return nopCloser{stdout}, nil
	}
	return os.OpenFile(l.options.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) // clients' addresses are not for everybody
}

// Wants reports whether a request that ends now with a status is to be written: of 202s a random share, of each other status so many a
// second. Each call counts, so ask once for a request, and write it if the answer is yes.
func (l *AccessLog) Wants(status int, now time.Time) bool {
	switch {
	case l == nil:
		return false
	case status < 300:
		return rand.Uint64()>>1 < l.threshold
	case status >= 600:
		return false
	}
	return l.refusals[status-300].Take(now)
}

// Write has a request written, soon. It never waits: when too many wait already, the line is dropped.
func (l *AccessLog) Write(a Access) {
	select {
	case l.lines <- a:
	default:
		l.dropped.Add(1)
	}
}

// Reopen has the file opened anew, by its name: after it was renamed, what comes goes to a new file.
func (l *AccessLog) Reopen() {
	if l == nil {
		return
	}
	select {
	case l.reopen <- struct{}{}:
	default: // asked for already
	}
}

// Stats returns how many lines were written, and how many were dropped because they could not be, since the start.
func (l *AccessLog) Stats() (written, dropped uint64) {
	if l == nil {
		return 0, 0
	}
	return l.written.Load(), l.dropped.Load()
}

// Run writes until ctx ends, then what waits, and closes the file.
func (l *AccessLog) Run(ctx context.Context) error {
	w := &accessWriter{AccessLog: l, buffer: bufio.NewWriterSize(l.out, 64<<10)}
	w.handler = slog.NewJSONHandler(w.buffer, &slog.HandlerOptions{ReplaceAttr: onlyTime})
	for {
		select {
		case a := <-l.lines:
			w.write(&a)
			w.drain() // one write for all that wait
		case <-l.reopen:
			w.renew()
		case <-ctx.Done():
			w.drain()
			return l.out.Close()
		}
	}
}

// accessWriter is what the goroutine of Run has.
type accessWriter struct {
	*AccessLog
	buffer  *bufio.Writer
	handler slog.Handler
	held    uint64 // lines in the buffer
}

// drain writes all that waits.
func (w *accessWriter) drain() {
	for {
		select {
		case a := <-w.lines:
			w.write(&a)
		default:
			w.flush()
			return
		}
	}
}

func (w *accessWriter) flush() {
	if err := w.buffer.Flush(); err != nil {
		w.dropped.Add(w.held)
		w.options.Log.Warn("the access log cannot be written: lines are lost", "lines", w.held, "error", err)
		w.buffer.Reset(w.out)
	} else {
		w.written.Add(w.held)
	}
	w.held = 0
}

// renew goes on in a new file, or in the old one if there can be no new one.
func (w *accessWriter) renew() {
	out, err := w.open()
	if err != nil {
		w.options.Log.Error("the access log cannot be opened anew: it goes on in the old file", "error", err)
		return
	}
	if err := w.out.Close(); err != nil {
		w.options.Log.Warn("close the access log", "error", err)
	}
	w.out = out
	w.buffer.Reset(out)
}

// maxAccessDetail is how many octets of a refusal's detail are written.
const maxAccessDetail = 300

func (w *accessWriter) write(a *Access) {
	if w.buffer.Available() < 4<<10 {
		w.flush()
	}
	w.held++
	record := slog.NewRecord(a.Time, slog.LevelInfo, "", 0)
	record.AddAttrs(slog.String("pop", a.PoP), slog.String("remote", a.Remote.String()), slog.String("protocol", a.Protocol), slog.Int("status", a.Status))
	text := func(name, value string) {
		if value != "" {
			record.AddAttrs(slog.String(name, value))
		}
	}
	text("service", a.Service)
	text("id", a.ID)
	text("key_id", a.KeyID)
	if a.Probe {
		record.AddAttrs(slog.Bool("probe", true))
	}
	record.AddAttrs(slog.Int64("bytes", a.Bytes))
	for _, took := range []struct {
		name string
		time time.Duration
	}{{"queue_ms", a.Queue}, {"body_ms", a.Body}, {"spool_ms", a.Spool}, {"total_ms", a.Total}} {
		if took.time > 0 {
			record.AddAttrs(slog.Float64(took.name, float64(took.time.Round(time.Microsecond))/float64(time.Millisecond)))
		}
	}
	text("cluster", a.Cluster)
	text("detail", strings.ToValidUTF8(a.Detail[:min(len(a.Detail), maxAccessDetail)], ""))
	text("trace", a.Trace)
	_ = w.handler.Handle(context.Background(), record) // the buffer remembers what went wrong, for flush
}

// onlyTime drops what all lines would say alike, and has times in UTC.
func onlyTime(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case slog.LevelKey, slog.MessageKey:
		return slog.Attr{}
	case slog.TimeKey:
		return slog.Time(slog.TimeKey, a.Value.Time().UTC())
	}
	return a
}
