package health

import (
	"encoding/binary"
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
	maxAddress   = 64       // octets, of a key too
	maxAge       = 10 * 365 * 24 * time.Hour
	maxTook      = time.Hour
)

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
// A report is: schema, flags, vantage, region, kinds, key, address, where it serves, incarnation, sequence, degraded, load (requests a second, CPU in 1/1000, queue in 0.1 ms),
// number of statements, statements. A statement is: kind, name, status and flags, failures, code, reason, age of since and of seen (ms),
// took, connect, handshake, answer (0.1 ms). If PoPs are hosted, their number follows, and of each its name, flags and
// why it is degraded. Numbers are unsigned varints, strings have their length before them.
func (r *Report) Append(b []byte, limit int, now time.Time) []byte {
	if limit <= 0 || limit > MaxReport {
		limit = MaxReport
	}
	head := r.appendHead(nil)
	hosts := r.appendHosts(nil)
	size, count := len(binary.AppendUvarint(head, uint64(len(r.Statements))))+len(hosts), 0
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
	return append(b, hosts...)
}

// maxHosted is how many PoPs of one process are told of, at most.
const maxHosted = 64

func (r *Report) appendHosts(b []byte) []byte {
	hosts := r.Hosts[:min(len(r.Hosts), maxHosted)]
	if len(hosts) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(hosts)))
	for _, h := range hosts {
		b = appendString(b, h.PoP, maxName)
		var flags byte
		if h.Shedding {
			flags = flagShedding
		}
		b = append(b, flags)
		b = appendString(b, h.Degraded, MaxReason)
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
	b = append(b, byte(r.Looks))
	for _, text := range []string{r.Key, r.Address, r.Serves} {
		b = appendString(b, text, maxAddress)
	}
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
