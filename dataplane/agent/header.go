package agent

import (
	"net/http"
	"strings"
)

// maxKept is how many fields of a header an agent keeps beside those that it knows.
const maxKept = 8

// keep packs the traceparent and those other fields of a program's header that are to be sent on, a line each, into the envelope's
// text for the former: the spool's format has no other place, and knows no agents.
func (a *Agent) keep(header http.Header, traceparent string) (packed string, ok bool) {
	for _, name := range a.config.Keep[:min(len(a.config.Keep), maxKept)] {
		value := header.Get(name)
		if value == "" {
			continue
		}
		if len(value) > maxField || len(header.Values(name)) > 1 {
			return "", false
		}
		packed += "\n" + name + ": " + value
	}
	return traceparent + packed, true
}

// unpack adds to a header what keep has packed.
func unpack(packed string, to http.Header) {
	traceparent, rest, _ := strings.Cut(packed, "\n")
	if traceparent != "" {
		to.Set("Traceparent", traceparent)
	}
	for line := range strings.Lines(rest) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			to.Set(name, value)
		}
	}
}
