package scenario

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Matrix has the round-trip times that an operator has measured between places. It is immutable.
type Matrix struct {
	us map[[2]string]uint32 // by names in lower case, in order
}

// The bounds of a matrix.
const (
	maxMatrixRows   = 5_000_000
	maxMatrixMS     = 10_000
	maxMatrixFaults = 20
)

// ParseMatrix reads CSV with the columns from, to and rtt_ms, in any order. Names are those of PoPs, clusters, metros or IATA codes, whatever
// their case. Of a pair that comes several times, in one direction or both, the mean counts. The error tells all faults, 20 at most, with
// their lines.
func ParseMatrix(text []byte) (*Matrix, error) {
	reader := csv.NewReader(bytes.NewReader(text))
	head, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	var columns [3]int
	for i, name := range []string{"from", "to", "rtt_ms"} {
		if columns[i] = slices.Index(head, name); columns[i] < 0 {
			return nil, fmt.Errorf("column %s is missing; want from,to,rtt_ms", name)
		}
	}
	type sum struct{ us, n uint64 }
	sums := map[[2]string]sum{}
	var faults []error
	for rows := 0; ; rows++ {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if rows == maxMatrixRows {
			return nil, fmt.Errorf("more than %d rows", maxMatrixRows)
		}
		from, to, value := strings.TrimSpace(row[columns[0]]), strings.TrimSpace(row[columns[1]]), row[columns[2]]
		ms, err := strconv.ParseFloat(value, 64)
		switch line, _ := reader.FieldPos(0); {
		case len(faults) == maxMatrixFaults:
			return nil, errors.Join(faults...)
		case from == "" || to == "":
			faults = append(faults, fmt.Errorf("line %d: from or to is empty", line))
			continue
		case err != nil || !(ms >= 0 && ms <= maxMatrixMS):
			faults = append(faults, fmt.Errorf("line %d: rtt_ms: %q is not in 0..%d", line, value, maxMatrixMS))
			continue
		}
		s := sums[pairOf(from, to)]
		sums[pairOf(from, to)] = sum{s.us + uint64(ms*1000+0.5), s.n + 1}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	m := &Matrix{us: make(map[[2]string]uint32, len(sums))}
	for pair, s := range sums {
		m.us[pair] = uint32((s.us + s.n/2) / s.n)
	}
	return m, nil
}

// pairOf returns two names in one order.
func pairOf(a, b string) [2]string {
	a, b = strings.ToLower(a), strings.ToLower(b)
	return [2]string{min(a, b), max(a, b)}
}

// Microseconds returns the round-trip time between two places, whatever their order and the case of their names, and false where none was
// measured. A nil matrix has none.
func (m *Matrix) Microseconds(a, b string) (uint32, bool) {
	if m == nil {
		return 0, false
	}
	us, ok := m.us[pairOf(a, b)]
	return us, ok
}

// Len returns how many pairs were measured.
func (m *Matrix) Len() int {
	if m == nil {
		return 0
	}
	return len(m.us)
}
