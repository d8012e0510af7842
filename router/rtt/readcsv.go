package rtt

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// csvColumns are those of a table of measurements.
var csvColumns = []string{"prefix", "pop", "rtt_ms", "samples"}

// ReadCSV reads measurements, such as an operator's own pings: a file with the columns prefix, pop, rtt_ms and samples, in any
// order; without samples each row is one. The error is ErrInvalidMap and tells all faults, 20 at most, with their lines.
func ReadCSV(in io.Reader) (*Map, error) {
	reader := csv.NewReader(in)
	head, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: read the header: %w", ErrInvalidMap, err)
	}
	var columns [4]int
	for i, name := range csvColumns {
		if columns[i] = slices.Index(head, name); columns[i] < 0 && name != "samples" {
			return nil, fmt.Errorf("%w: column %s is missing; want %s", ErrInvalidMap, name, strings.Join(csvColumns, ","))
		}
	}
	var all []Measurement
	var faults []error
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidMap, err)
		}
		m, err := measurementOf(row, columns)
		if err != nil {
			line, _ := reader.FieldPos(0)
			if faults = append(faults, fmt.Errorf("line %d: %w", line, err)); len(faults) == 20 {
				break
			}
			continue
		}
		if all = append(all, m); len(all) > maxMapEntries {
			return nil, fmt.Errorf("%w: more than %d rows", ErrInvalidMap, maxMapEntries)
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrInvalidMap, errors.Join(faults...))
	}
	return NewMap(all)
}

func measurementOf(row []string, columns [4]int) (Measurement, error) {
	m := Measurement{PoP: strings.TrimSpace(row[columns[1]]), Samples: 1}
	var err error
	if m.Prefix, err = netip.ParsePrefix(strings.TrimSpace(row[columns[0]])); err != nil || m.Prefix.Masked() != m.Prefix || m.Prefix.Bits() > 64 || m.Prefix.Addr().Is4In6() {
		return m, fmt.Errorf("prefix: %q is not a prefix of at most 64 bits in canonical form such as 203.0.113.0/24", row[columns[0]])
	}
	if m.PoP == "" {
		return m, errors.New("pop: is empty")
	}
	ms, err := strconv.ParseFloat(strings.TrimSpace(row[columns[2]]), 64)
	if err != nil || !(ms >= 0 && ms <= float64(longestRTT/time.Millisecond)) {
		return m, fmt.Errorf("rtt_ms: %q is not in 0..%d", row[columns[2]], longestRTT/time.Millisecond)
	}
	m.RTT = time.Duration(ms * float64(time.Millisecond))
	if columns[3] >= 0 {
		if m.Samples, err = strconv.Atoi(strings.TrimSpace(row[columns[3]])); err != nil || m.Samples < 1 {
			return m, fmt.Errorf("samples: %q is not a whole number from 1 on", row[columns[3]])
		}
	}
	return m, nil
}
