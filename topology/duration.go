package topology

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as Go writes it, such as 20s or 1h30m.
type Duration time.Duration

// String returns the duration as it stands in a document.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns what String returns.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 20s or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}
