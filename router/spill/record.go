package spill

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/isochrone/isochrone/router"
)

// Schema is the newest form of the record that this code knows.
const Schema = 1

// MaxRecord is how long a record may be, in bytes: what etcd takes in one request.
const MaxRecord = 1_400_000

// What Decode's errors are about.
var (
	ErrInvalid = errors.New("invalid shares")
	ErrTooNew  = errors.New("shares of a newer schema")
)

// record is how shares are kept in etcd.
type record struct {
	Schema int                `json:"schema"`
	Takes  []entry            `json:"takes,omitempty"`
	Lost   map[string][]entry `json:"lost,omitempty"`
}

// entry is what PoPs take of the clients whose first choices are these.
type entry struct {
	Clients []string           `json:"clients"`
	Takes   map[string]float64 `json:"takes"`
}

// Encode returns the record of shares as JSON, which is YAML too, compressed if it is long. Equal shares give equal bytes. The error is ErrInvalid.
func Encode(s router.Spill) ([]byte, error) {
	r := record{Schema: Schema, Takes: entriesOf(s.Takes)}
	for pop, takes := range s.Lost {
		if r.Lost == nil {
			r.Lost = map[string][]entry{}
		}
		r.Lost[pop] = entriesOf(takes)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if text = append(text, '\n'); len(text) > plainRecord {
		text = compressed(text)
	}
	if len(text) > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, at most %d can be kept", ErrInvalid, len(text), MaxRecord)
	}
	return text, nil
}

// plainRecord is up to what length a record is kept as it is, for people; longer ones are compressed (gzip, RFC 1952). unpacked bounds what becomes of
// one, in bytes.
const (
	plainRecord = 64 << 10
	unpacked    = 16 << 20
)

func compressed(text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		panic("spill: " + err.Error()) // memory takes all
	}
	return out.Bytes()
}

// plainText returns the JSON of a record.
func plainText(text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != 0x1f || text[1] != 0x8b {
		return text, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(r, unpacked+1))
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case len(text) > unpacked:
		return nil, fmt.Errorf("%w: more than %d bytes when it is unpacked", ErrInvalid, unpacked)
	}
	return text, nil
}

func entriesOf(takes map[Leading]router.Takes) []entry {
	var entries []entry
	for _, leading := range slices.SortedFunc(maps.Keys(takes), Leading.Compare) {
		names := leading[:]
		for len(names) > 1 && names[len(names)-1] == "" {
			names = names[:len(names)-1]
		}
		entries = append(entries, entry{slices.Clone(names), takes[leading]})
	}
	return entries
}

// Decode reads a record. The errors are ErrInvalid, which names all that is wrong, and ErrTooNew.
func Decode(text []byte) (router.Spill, error) {
	var s router.Spill
	if len(text) > MaxRecord {
		return s, fmt.Errorf("%w: %d bytes, at most %d are read", ErrInvalid, len(text), MaxRecord)
	}
	text, err := plainText(text)
	if err != nil {
		return s, err
	}
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return s, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if version.Schema > Schema {
		return s, fmt.Errorf("%w: %d, this node knows %d", ErrTooNew, version.Schema, Schema)
	}
	var r record
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return s, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return s, fmt.Errorf("%w: something stands behind the record", ErrInvalid)
	}
	if err := r.check(); err != nil {
		return s, err
	}
	s.Takes = takesIn(r.Takes)
	for pop, entries := range r.Lost {
		if s.Lost == nil {
			s.Lost = map[string]map[Leading]router.Takes{}
		}
		s.Lost[pop] = takesIn(entries)
	}
	return s, nil
}

func takesIn(entries []entry) map[Leading]router.Takes {
	if len(entries) == 0 {
		return nil
	}
	takes := make(map[Leading]router.Takes, len(entries))
	for _, e := range entries {
		takes[e.leading()] = e.Takes
	}
	return takes
}

func (e entry) leading() (l Leading) {
	copy(l[:], e.Clients)
	return l
}

// check tells all that is wrong with a record.
func (r *record) check() error {
	var faults []error
	if r.Schema != Schema {
		faults = append(faults, fmt.Errorf("schema: %d is not %d", r.Schema, Schema))
	}
	faults = append(faults, checkEntries("takes", r.Takes)...)
	for _, pop := range slices.Sorted(maps.Keys(r.Lost)) {
		if pop == "" {
			faults = append(faults, errors.New("lost: a PoP has no name"))
		}
		faults = append(faults, checkEntries("lost."+pop, r.Lost[pop])...)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(faults[:min(len(faults), 20)]...))
	}
	return nil
}

func checkEntries(where string, entries []entry) (faults []error) {
	seen := map[Leading]bool{}
	for i, e := range entries {
		at := fmt.Sprintf("%s[%d]", where, i)
		if len(e.Clients) < 1 || len(e.Clients) > len(Leading{}) || slices.Contains(e.Clients, "") {
			faults = append(faults, fmt.Errorf("%s.clients: %q are not the names of one to four PoPs", at, e.Clients))
			continue
		}
		if seen[e.leading()] {
			faults = append(faults, fmt.Errorf("%s.clients: %q stand there twice", at, e.Clients))
		}
		seen[e.leading()] = true
		for _, pop := range slices.Sorted(maps.Keys(e.Takes)) {
			if share := e.Takes[pop]; pop == "" || !(share >= 0 && share <= 1) {
				faults = append(faults, fmt.Errorf("%s.takes.%s: %v is not a share in 0..1 of a PoP", at, pop, share))
			}
		}
	}
	return faults
}
