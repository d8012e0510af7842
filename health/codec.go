package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a report.
const (
	ReportSchema = 1        // first octet of an encoded report
	MaxReport    = 64 << 10 // octets
	MaxReason    = 120      // octets of a statement's evidence
	maxName      = 128      // octets of the name of a vantage or a target
	maxRegion    = 8        // octets
	maxAge       = 10 * 365 * 24 * time.Hour
	maxTook      = time.Hour
)

// ErrReport is the error of octets that are no report.
var ErrReport = errors.New("not a report")

// The numbers of kinds, statuses and codes in a report. They never change; new ones are added at the end.
var (
	kindNumbers   = []Kind{PoP, Cluster, DNS}
	statusNumbers = []Status{Unknown, Up, Down}
	codeNumbers   = []Code{
		"", Other, Timeout, Refused, Unreachable, Reset, Handshake, Certificate, Expiring, Answered, Syncing, Lagging, Lonely, Flapping, Traffic,
	}
)

// The flags of a report and of a statement, whose lowest two bits are its status.
const (
	flagFull, flagShedding   = 1, 2
	flagLate, flagSuppressed = 4, 8
)

// Append appends the encoded report to b, in at most limit octets (0 stands for MaxReport). Statements that do not fit are left out, those
// of targets that are not well last, and then the report is not encoded as full. Ages are as of now.
//
// A report is: schema, flags, vantage, region, incarnation, sequence, degraded, load (requests a second, CPU in 1/1000, queue in 0.1 ms),
// number of statements, statements. A statement is: kind, name, status and flags, failures, code, reason, age of since and of seen (ms),
// took, connect, handshake, answer (0.1 ms). Numbers are unsigned varints, strings have their length before them.
func (r *Report) Append(b []byte, limit int, now time.Time) []byte {
	if limit <= 0 || limit > MaxReport {
		limit = MaxReport
	}
	head := r.appendHead(nil)
	size, count := len(binary.AppendUvarint(head, uint64(len(r.Statements)))), 0
	packed := make([][]byte, 0, len(r.Statements))
	for _, wanted := range []bool{false, true} { // those that are not well first
		for i := range r.Statements {
			s := &r.Statements[i]
			if well := s.Status == Up && !s.Suspects(); well != wanted {
				continue
			}
			one := s.append(nil, now)
			if size+len(one) > limit {
				continue
			}
			size += len(one)
			count++
			packed = append(packed, one)
		}
	}
	if count < len(r.Statements) {
		head[1] &^= flagFull
	}
	b = append(b, head...)
	b = binary.AppendUvarint(b, uint64(count))
	for _, one := range packed {
		b = append(b, one...)
	}
	return b
}

func (r *Report) appendHead(b []byte) []byte {
	var flags byte
	if r.Full {
		flags |= flagFull
	}
	if r.Self.Shedding {
		flags |= flagShedding
	}
	b = append(b, ReportSchema, flags)
	b = appendString(b, r.Name, maxName)
	b = appendString(b, r.Region, maxRegion)
	b = binary.AppendUvarint(b, uint64(max(r.Incarnation, 0)))
	b = binary.AppendUvarint(b, r.Sequence)
	b = appendString(b, r.Self.Degraded, MaxReason)
	b = binary.AppendUvarint(b, uint64(min(max(r.Self.Load.RPS, 0), 1e12)))
	b = binary.AppendUvarint(b, uint64(min(max(r.Self.Load.CPU, 0), 1)*1000+0.5))
	return appendTook(b, r.Self.Load.Queue)
}

func (s *Statement) append(b []byte, now time.Time) []byte {
	flags := byte(max(slices.Index(statusNumbers, s.Status), 0))
	if s.Late {
		flags |= flagLate
	}
	if s.Suppressed {
		flags |= flagSuppressed
	}
	code := slices.Index(codeNumbers, s.Code)
	if code < 0 {
		code = slices.Index(codeNumbers, Other)
	}
	b = append(b, byte(slices.Index(kindNumbers, s.Target.Kind)+1))
	b = appendString(b, s.Target.Name, maxName)
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(min(max(s.Failures, 0), 255)))
	b = append(b, byte(code))
	b = appendString(b, s.Reason, MaxReason)
	b = appendAge(b, now, s.Since)
	b = appendAge(b, now, s.Seen)
	for _, took := range []time.Duration{s.Took, s.Steps.Connect, s.Steps.Handshake, s.Steps.Answer} {
		b = appendTook(b, took)
	}
	return b
}

func appendAge(b []byte, now, then time.Time) []byte {
	return binary.AppendUvarint(b, uint64(min(max(now.Sub(then), 0), maxAge)/time.Millisecond))
}

func appendTook(b []byte, took time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(min(max(took, 0), maxTook)/tookUnit))
}

const tookUnit = 100 * time.Microsecond

// appendString appends a string of at most limit octets, in UTF-8 without control characters.
func appendString(b []byte, s string, limit int) []byte {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	for len(s) > limit {
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
	return append(append(b, byte(len(s))), s...)
}

// DecodeReport reads a report that has just arrived: now is the local time of its arrival. The error is ErrReport, and says what is wrong
// and at which octet. Nothing of b is kept.
func DecodeReport(b []byte, now time.Time) (*Report, error) {
	if len(b) > MaxReport {
		return nil, fmt.Errorf("%w: %d octets, want at most %d", ErrReport, len(b), MaxReport)
	}
	d := decoder{whole: b, rest: b}
	r := d.report(now)
	if d.err != nil {
		return nil, d.err
	}
	return r, nil
}

// decoder reads a report. After the first error it reads zeros.
type decoder struct {
	whole, rest []byte
	err         error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: octet %d: %s", ErrReport, len(d.whole)-len(d.rest), fmt.Sprintf(format, args...))
		d.rest = nil
	}
}

func (d *decoder) report(now time.Time) *Report {
	r := &Report{}
	if schema := d.octet("schema", 255); schema != ReportSchema {
		d.fail("schema %d, want %d", schema, ReportSchema)
	}
	flags := d.octet("flags", flagFull|flagShedding)
	r.Full, r.Self.Shedding = flags&flagFull != 0, flags&flagShedding != 0
	r.Name = d.name("vantage")
	r.Region = d.text("region", maxRegion)
	r.Incarnation = int64(d.number("incarnation", 1<<63-1))
	r.Sequence = d.number("sequence", 1<<64-1)
	if r.Sequence == 0 {
		d.fail("sequence 0, want at least 1")
	}
	r.Self.Degraded = d.text("degraded", MaxReason)
	r.Self.Load.RPS = float64(d.number("requests a second", 1e12))
	r.Self.Load.CPU = float64(d.number("CPU", 1000)) / 1000
	r.Self.Load.Queue = d.took("queue")
	count := d.number("number of statements", MaxReport/leastStatement)
	if int(count) > len(d.rest)/leastStatement {
		d.fail("%d statements in %d octets", count, len(d.rest))
		return nil
	}
	seen := make(map[Target]bool, count)
	for range count {
		s := d.statement(now)
		if seen[s.Target] {
			d.fail("a second statement of %v", s.Target)
		}
		if d.err != nil {
			return nil
		}
		seen[s.Target] = true
		r.Statements = append(r.Statements, s)
	}
	if len(d.rest) > 0 {
		d.fail("%d octets after the last statement", len(d.rest))
	}
	return r
}

const leastStatement = 13 // octets

func (d *decoder) statement(now time.Time) (s Statement) {
	kind := int(d.octet("kind", byte(len(kindNumbers))))
	if kind == 0 {
		d.fail("kind 0, want 1..%d", len(kindNumbers))
		return s
	}
	s.Target = Target{kindNumbers[kind-1], d.name("target")}
	flags := d.octet("status and flags", flagSuppressed|flagLate|2)
	s.Status = statusNumbers[flags&3%byte(len(statusNumbers))]
	s.Late, s.Suppressed = flags&flagLate != 0, flags&flagSuppressed != 0
	s.Failures = int(d.number("failures", 255))
	if code := d.octet("code", 255); int(code) < len(codeNumbers) {
		s.Code = codeNumbers[code]
	} else {
		s.Code = Other // of a later version
	}
	s.Reason = d.text("reason", MaxReason)
	s.Since, s.Seen = d.age("since", now), d.age("seen", now)
	s.Took, s.Steps.Connect, s.Steps.Handshake, s.Steps.Answer = d.took("took"), d.took("connect"), d.took("handshake"), d.took("answer")
	return s
}

func (d *decoder) octet(what string, most byte) byte {
	if len(d.rest) == 0 {
		d.fail("%s is missing", what)
		return 0
	}
	if d.rest[0] > most {
		d.fail("%s %d, want at most %d", what, d.rest[0], most)
		return 0
	}
	one := d.rest[0]
	d.rest = d.rest[1:]
	return one
}

func (d *decoder) number(what string, most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > most {
		d.fail("%s is no number up to %d", what, most)
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) took(what string) time.Duration {
	return time.Duration(d.number(what, uint64(maxTook/tookUnit))) * tookUnit
}

func (d *decoder) age(what string, now time.Time) time.Time {
	return now.Add(-time.Duration(d.number(what, uint64(maxAge/time.Millisecond))) * time.Millisecond)
}

func (d *decoder) text(what string, most int) string {
	size := int(d.octet("length of "+what, byte(most)))
	if size > len(d.rest) {
		d.fail("%s of %d octets, of which %d are there", what, size, len(d.rest))
		return ""
	}
	s := string(d.rest[:size])
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		d.fail("%s is not UTF-8 without control characters", what)
		return ""
	}
	d.rest = d.rest[size:]
	return s
}

func (d *decoder) name(what string) string {
	s := d.text(what, maxName)
	if s == "" {
		d.fail("%s has no name", what)
	}
	return s
}
