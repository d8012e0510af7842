package rtt

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
)

// An encoded map is a manifest and chunks. The manifest is JSON and names the chunks by the SHA-256 of their bytes, in the order
// of addresses; the SHA-256 of the manifest names the map. A chunk has the prefixes of one eighth-bit block of IPv4, or one
// sixteenth-bit block of IPv6, so that a change in one of them changes one chunk, and nodes fetch what they do not have.
//
// A chunk is DEFLATE (RFC 1951) of one record for each prefix, in the order of Map.Prefix: the difference of its first 64 bits
// to those of the prefix before it, its length, and the number of its entries; then for each entry the PoP's number in the
// manifest, as a difference to the one before it, microseconds, and samples. All are unsigned varints (as in encoding/binary),
// the length is one octet. A million prefixes of three entries take about 16 MB.

// The version of the format, and bounds of what is decoded.
const (
	mapFormat     = "isochrone-rtt-map"
	mapVersion    = 1
	maxManifest   = 4 << 20
	maxChunk      = 64 << 20 // octets, unpacked
	maxPrefixes   = 16 << 20
	maxMapEntries = 256 << 20
)

type manifest struct {
	Format  string     `json:"format"`
	Version int        `json:"version"`
	PoPs    []string   `json:"pops"`
	Chunks  []chunkRef `json:"chunks"`
}

type chunkRef struct {
	SHA256   string `json:"sha256"` // lower-case hex
	Family   int    `json:"family"` // 4 or 6
	Prefixes int    `json:"prefixes"`
}

// Encode returns the manifest, and the chunks by their SHA-256 in lower-case hex.
func (m *Map) Encode() (text []byte, chunks map[string][]byte) {
	described := manifest{Format: mapFormat, Version: mapVersion, PoPs: m.pops}
	chunks = map[string][]byte{}
	for begin := 0; begin < m.Len(); {
		end := begin + 1
		for end < m.Len() && m.block(end) == m.block(begin) {
			end++
		}
		packed := m.encodeChunk(begin, end)
		sum := sha256.Sum256(packed)
		name := hex.EncodeToString(sum[:])
		chunks[name] = packed
		described.Chunks = append(described.Chunks, chunkRef{name, m.family(begin), end - begin})
		begin = end
	}
	text, err := json.Marshal(described)
	if err != nil {
		panic("rtt: " + err.Error()) // text and numbers
	}
	return text, chunks
}

func (m *Map) family(i int) int {
	if i < m.v4 {
		return 4
	}
	return 6
}

// block returns what prefixes of one chunk have in common.
func (m *Map) block(i int) uint64 {
	if i < m.v4 {
		return m.addrs[i] >> 56
	}
	return 1<<32 | m.addrs[i]>>48
}

func (m *Map) encodeChunk(begin, end int) []byte {
	var records []byte
	var before uint64
	for i := begin; i < end; i++ {
		records = binary.AppendUvarint(records, m.addrs[i]-before)
		before = m.addrs[i]
		records = append(records, m.bits[i])
		entries := m.Entries(i)
		records = binary.AppendUvarint(records, uint64(len(entries)))
		pop := uint64(0)
		for _, e := range entries {
			records = binary.AppendUvarint(records, uint64(e.PoP)-pop)
			pop = uint64(e.PoP)
			records = binary.AppendUvarint(records, uint64(e.Microseconds))
			records = binary.AppendUvarint(records, uint64(e.Samples))
		}
	}
	var packed bytes.Buffer
	writer, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		panic("rtt: " + err.Error()) // the level is a valid one
	}
	_, _ = writer.Write(records) // a buffer takes everything
	_ = writer.Close()
	return packed.Bytes()
}

// Decode reads an encoded map. Chunks are asked for by their SHA-256 in lower-case hex, and checked. The error is ErrInvalidMap
// for what is not a map of this version, or what the chunk function returned.
func Decode(text []byte, chunk func(sha256 string) ([]byte, error)) (*Map, error) {
	var described manifest
	if len(text) > maxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d octets, at most %d are taken", ErrInvalidMap, len(text), maxManifest)
	}
	if err := json.Unmarshal(text, &described); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrInvalidMap, err)
	}
	if described.Format != mapFormat || described.Version != mapVersion {
		return nil, fmt.Errorf("%w: format %q of version %d, want %s of version %d", ErrInvalidMap, described.Format, described.Version, mapFormat, mapVersion)
	}
	if len(described.PoPs) > 1<<16 || !slices.IsSorted(described.PoPs) || len(slices.Compact(slices.Clone(described.PoPs))) != len(described.PoPs) {
		return nil, fmt.Errorf("%w: PoPs are not in order, or too many", ErrInvalidMap)
	}
	m := &Map{pops: described.PoPs, first: []uint32{0}}
	for _, ref := range described.Chunks {
		packed, err := chunk(ref.SHA256)
		if err != nil {
			return nil, fmt.Errorf("chunk %s: %w", ref.SHA256, err)
		}
		if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != ref.SHA256 {
			return nil, fmt.Errorf("%w: chunk %s has other bytes", ErrInvalidMap, ref.SHA256)
		}
		if err := m.decodeChunk(ref, packed); err != nil {
			return nil, fmt.Errorf("%w: chunk %s: %w", ErrInvalidMap, ref.SHA256, err)
		}
	}
	return m, nil
}

var errRecord = errors.New("a record is cut short or out of range")

func (m *Map) decodeChunk(ref chunkRef, packed []byte) error {
	records, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxChunk+1))
	if err != nil {
		return err
	}
	if len(records) > maxChunk {
		return fmt.Errorf("more than %d octets", maxChunk)
	}
	if ref.Family != 4 && ref.Family != 6 || ref.Family == 4 && m.v4 != len(m.addrs) {
		return errors.New("a family that is none, or out of order")
	}
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(records)
		if n <= 0 || v > limit {
			err = errRecord
			return 0
		}
		records = records[n:]
		return v
	}
	var before uint64
	for range ref.Prefixes {
		before += number(math.MaxUint64 - before)
		if len(records) == 0 || len(m.addrs) >= maxPrefixes {
			return errRecord
		}
		bits := records[0]
		records = records[1:]
		m.addrs, m.bits = append(m.addrs, before), append(m.bits, bits)
		if ref.Family == 4 {
			m.v4++
		}
		if err := m.checkLast(); err != nil {
			return err
		}
		count, pop := number(uint64(len(m.pops))), uint64(0)
		for i := range count {
			step := number(uint64(len(m.pops)))
			if pop += step; i > 0 && step == 0 || pop >= uint64(len(m.pops)) || len(m.entries) >= maxMapEntries {
				return errRecord
			}
			us := number(uint64(longestRTT.Microseconds()))
			samples := number(math.MaxUint16)
			if samples == 0 {
				return errRecord
			}
			m.entries = append(m.entries, Entry{uint16(pop), uint16(samples), uint32(us)})
		}
		if err != nil {
			return err
		}
		m.first = append(m.first, uint32(len(m.entries)))
	}
	if len(records) > 0 {
		return errors.New("something follows the last record")
	}
	return nil
}

// checkLast checks that the last prefix is in canonical form, and comes behind the one before it.
func (m *Map) checkLast() error {
	last := len(m.addrs) - 1
	longest := uint8(64)
	if last < m.v4 {
		longest = 32
	}
	if m.bits[last] > longest || m.addrs[last]<<m.bits[last] != 0 && m.bits[last] < 64 {
		return errRecord
	}
	if last == 0 || last == m.v4 {
		return nil
	}
	var p, q netip.Prefix = m.Prefix(last - 1), m.Prefix(last)
	if comparePrefixes(p, q) >= 0 {
		return errors.New("prefixes are out of order")
	}
	return nil
}
