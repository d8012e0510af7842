package payload

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEcho is how many octets of a payload an error repeats.
const maxEcho = 40

// Fault is what is wrong with a payload.
type Fault struct {
	Offset  int    // where in the body, in octets from 0; -1 if only the pointer is known
	Pointer string // JSON pointer (RFC 6901) of the value, cut to 40 octets; empty for the whole
	Want    string // what is wrong and what would be right; nothing of the payload is in it
}

// Error implements error.
func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString("the payload")
	if f.Offset >= 0 {
		fmt.Fprintf(&b, " at octet %d", f.Offset)
	}
	if f.Pointer != "" {
		fmt.Fprintf(&b, " (%s)", f.Pointer)
	}
	b.WriteString(": ")
	b.WriteString(f.Want)
	return b.String()
}

// pointer makes a JSON pointer of steps, cut and free of what a terminal would obey.
func pointer(steps []string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteByte('/')
		for _, r := range step {
			text := string(r)
			switch {
			case r == '~':
				text = "~0"
			case r == '/':
				text = "~1"
			case r == utf8.RuneError || !unicode.IsPrint(r):
				text = "?"
			}
			if b.Len()+len(text) > maxEcho-len("…") {
				b.WriteString("…")
				return b.String()
			}
			b.WriteString(text)
		}
	}
	return b.String()
}
