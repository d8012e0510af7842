package health

import "time"

// Bounds of a report.
const (
	ReportSchema = 1        // first octet of an encoded report
	MaxReport    = 64 << 10 // octets
	MaxReason    = 120      // octets of a statement's evidence
)

// Append appends the encoded report to b, in at most limit octets (0 stands for MaxReport). Statements that do not fit are left out, those
// of targets that are not well last, and then the report is not encoded as full. Ages are as of now.
func (r *Report) Append(b []byte, limit int, now time.Time) []byte { panic("to come") }

// DecodeReport reads a report that has just arrived: now is the local time of its arrival. The error says what is wrong and at which
// octet. Nothing of b is kept.
func DecodeReport(b []byte, now time.Time) (*Report, error) { panic("to come") }
