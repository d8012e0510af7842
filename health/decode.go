package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrReport is the error of octets that are no report.
var ErrReport = errors.New("not a report")

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
	r.Looks = Kinds(d.octet("kinds", 255))
	r.Key, r.Address, r.Serves = d.text("key", maxAddress), d.text("address", maxAddress), d.text("serves", maxAddress)
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
		r.Hosts = d.hosts()
	}
	if len(d.rest) > 0 {
		d.fail("%d octets after the end", len(d.rest))
	}
	return r
}

// hosts reads what hosted PoPs say, each once and by name.
func (d *decoder) hosts() (hosts []Hosted) {
	count := d.number("number of hosted PoPs", maxHosted)
	if count == 0 {
		d.fail("no hosted PoP, want some or nothing")
	}
	for range count {
		h := Hosted{PoP: d.name("hosted PoP"), Shedding: d.octet("flags of a hosted PoP", flagShedding) == flagShedding, Degraded: d.text("degraded", MaxReason)}
		if n := len(hosts); n > 0 && hosts[n-1].PoP >= h.PoP {
			d.fail("hosted PoP %s after %s", h.PoP, hosts[n-1].PoP)
		}
		if d.err != nil {
			return nil
		}
		hosts = append(hosts, h)
	}
	return hosts
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
