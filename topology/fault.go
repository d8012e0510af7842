package topology

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid is what errors.Is finds in every error about a topology, an override or a key that is not valid.
var ErrInvalid = errors.New("invalid topology")

// Fault is one thing that is wrong with an object.
type Fault struct {
	Path    string `json:"path"`           // such as pops.sin1.location.lat
	Line    int    `json:"line,omitempty"` // in the document, from 1; 0 when there is none
	Message string `json:"message"`        // what is wrong and what would be right
}

func (f Fault) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", f.Line, f.Path, f.Message)
	}
	return f.Path + ": " + f.Message
}

// InvalidError tells all faults of an input at once. errors.Is(err, ErrInvalid) is true for it.
type InvalidError struct{ Faults []Fault }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return "invalid topology:\n  " + strings.Join(lines, "\n  ")
}

// Unwrap returns ErrInvalid.
func (e *InvalidError) Unwrap() error { return ErrInvalid }
