package rtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func measured(prefix, pop string, ms float64, samples int) Measurement {
	return Measurement{netip.MustParsePrefix(prefix), pop, time.Duration(ms * float64(time.Millisecond)), samples}
}

// list writes a map down, a line for each entry.
func list(m *Map) []string {
	var lines []string
	for i := range m.Len() {
		for _, e := range m.Entries(i) {
			lines = append(lines, fmt.Sprintf("%v %s %d µs × %d", m.Prefix(i), m.PoPs()[e.PoP], e.Microseconds, e.Samples))
		}
	}
	return lines
}

func TestMap(t *testing.T) {
	m, err := NewMap([]Measurement{
		measured("2001:db8::/32", "sin1", 7, 1), measured("203.0.113.0/24", "sin1", 10, 3), measured("203.0.113.0/24", "fra1", 160, 2),
		measured("203.0.0.0/16", "fra1", 150, 100_000), measured("203.0.113.0/24", "sin1", 20, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"203.0.0.0/16 fra1 150000 µs × 65535", "203.0.113.0/24 fra1 160000 µs × 2", "203.0.113.0/24 sin1 12500 µs × 4", "2001:db8::/32 sin1 7000 µs × 1",
	}
	if diff := cmp.Diff(want, list(m)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	for _, bad := range []Measurement{
		{PoP: "x", Samples: 1}, measured("203.0.113.1/24", "x", 1, 1), measured("2001:db8::/65", "x", 1, 1), measured("10.0.0.0/8", "x", -1, 1), measured("10.0.0.0/8", "x", 1, 0),
	} {
		if _, err := NewMap([]Measurement{bad}); !errors.Is(err, ErrInvalidMap) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	if (*Map)(nil).Len() != 0 {
		t.Error("no map has prefixes")
	}
}

func TestMerge(t *testing.T) {
	for _, test := range []struct {
		predicted uint32
		e         Entry
		want      uint32
		weight    float64
	}{
		{100_000, Entry{Samples: 4, Microseconds: 50_000}, 75_000, 0.5},
		{100_000, Entry{Samples: 65535, Microseconds: 50_000}, 50_003, 65535.0 / 65539},
		{100_000, Entry{Samples: 1, Microseconds: 0}, 80_000, 0.2},
	} {
		if got, weight := Merge(test.predicted, test.e); got != test.want || weight != test.weight {
			t.Errorf("%+v: got %d, %v, want %d, %v", test.e, got, weight, test.want, test.weight)
		}
	}
}

// randomMap has prefixes of three entries each, one for each /24 of some address space.
func randomMap(tb testing.TB, prefixes int) *Map {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	all := make([]Measurement, 0, 3*prefixes)
	for i := range prefixes {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], (1<<16+uint32(i)*7)<<8)
		prefix := netip.PrefixFrom(netip.AddrFrom4(b), 24)
		if i%5 == 4 {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:8], 0x2400<<48+uint64(r.Uint32())<<8)
			prefix = netip.PrefixFrom(netip.AddrFrom16(b), 56)
		}
		for range 3 {
			all = append(all, Measurement{prefix, fmt.Sprintf("pop%03d", r.IntN(250)), time.Duration(2e6 + r.ExpFloat64()*4e7), 1 + r.IntN(100)})
		}
	}
	m, err := NewMap(all)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestEncodeAndDecode(t *testing.T) {
	m := randomMap(t, 3000)
	text, chunks := m.Encode()
	fetch := func(name string) ([]byte, error) { return chunks[name], nil }
	again, err := Decode(text, fetch)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list(m), list(again)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if same, _ := again.Encode(); !bytes.Equal(same, text) {
		t.Error("the manifest of what was decoded is another one")
	}
	for name, change := range map[string]func(string) string{
		"version": func(s string) string { return strings.Replace(s, `"version":1`, `"version":2`, 1) },
		"format":  func(s string) string { return strings.Replace(s, mapFormat, "other", 1) },
		"PoPs":    func(s string) string { return strings.Replace(s, `"pop000"`, `"zzz"`, 1) },
		"count":   func(s string) string { return strings.Replace(s, `"prefixes":`, `"prefixes":1`, 1) },
		"family":  func(s string) string { return strings.Replace(s, `"family":6`, `"family":4`, 1) },
		"no JSON": func(s string) string { return s[1:] },
	} {
		if _, err := Decode([]byte(change(string(text))), fetch); !errors.Is(err, ErrInvalidMap) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Decode(text, func(name string) ([]byte, error) { return append(chunks[name], 0), nil }); !errors.Is(err, ErrInvalidMap) {
		t.Errorf("other bytes: got %v", err)
	}
	missing := errors.New("not there")
	if _, err := Decode(text, func(string) ([]byte, error) { return nil, missing }); !errors.Is(err, missing) {
		t.Errorf("a chunk that is not there: got %v", err)
	}
}

// One measurement more changes one chunk.
func TestChunksAreStable(t *testing.T) {
	var all []Measurement
	for i := range 200 {
		all = append(all, measured(fmt.Sprintf("%d.0.0.0/24", i+1), "a", 1, 1))
	}
	m, _ := NewMap(all)
	_, before := m.Encode()
	m, _ = NewMap(append(all, measured("7.1.0.0/24", "a", 1, 1)))
	_, after := m.Encode()
	same := 0
	for name := range after {
		if before[name] != nil {
			same++
		}
	}
	if len(after) != 200 || same != 199 {
		t.Errorf("%d of %d chunks are the same", same, len(after))
	}
}

func TestReadCSV(t *testing.T) {
	m, err := ReadCSV(strings.NewReader("pop,prefix,rtt_ms,samples\nsin1,203.0.113.0/24,12.5,4\nfra1,2001:db8::/48,0.4,1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"203.0.113.0/24 sin1 12500 µs × 4", "2001:db8::/48 fra1 400 µs × 1"}, list(m)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if m, err := ReadCSV(strings.NewReader("prefix,pop,rtt_ms\n10.0.0.0/8,a,1\n10.0.0.0/8,a,3\n")); err != nil || m.Entries(0)[0] != (Entry{0, 2, 2000}) {
		t.Errorf("without samples: got %v, %v", m, err)
	}
	_, err = ReadCSV(strings.NewReader("prefix,pop,rtt_ms,samples\n203.0.113.1/24,a,1,1\n10.0.0.0/8,,1,1\n10.0.0.0/8,a,NaN,1\n10.0.0.0/8,a,1,0\n"))
	for _, want := range []string{"line 2: prefix", "line 3: pop", `line 4: rtt_ms: "NaN"`, `line 5: samples: "0"`} {
		if err == nil || !errors.Is(err, ErrInvalidMap) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if _, err := ReadCSV(strings.NewReader("prefix,pop\n")); err == nil || !strings.Contains(err.Error(), "rtt_ms is missing") {
		t.Errorf("got %v", err)
	}
}

// FuzzDecode reads chunks as a node gets them from elsewhere. What is taken can be read, and is encoded as the same map.
func FuzzDecode(f *testing.F) {
	m := randomMap(f, 40)
	for name, packed := range second(m.Encode()) {
		_ = name
		f.Add(packed, 10, 4)
	}
	f.Fuzz(func(t *testing.T, packed []byte, prefixes, family int) {
		m := &Map{pops: []string{"a", "b", "c"}, first: []uint32{0}}
		if m.decodeChunk(chunkRef{"", family, prefixes}, packed) != nil {
			return
		}
		text, chunks := m.Encode()
		again, err := Decode(text, func(name string) ([]byte, error) { return chunks[name], nil })
		if err != nil {
			t.Fatalf("what was taken is refused: %v", err)
		}
		if diff := cmp.Diff(list(m), list(again)); diff != "" {
			t.Fatalf("want -, got +:\n%s", diff)
		}
	})
}

func second[A, B any](_ A, b B) B { return b }

// BenchmarkEncode reports the size of a map of a million prefixes with three entries each.
func BenchmarkEncode(b *testing.B) {
	m := randomMap(b, 1_000_000)
	for b.Loop() {
		text, chunks := m.Encode()
		size := len(text)
		for _, chunk := range chunks {
			size += len(chunk)
		}
		b.ReportMetric(float64(size)/1e6, "MB")
		b.ReportMetric(float64(len(chunks)), "chunks")
	}
}
