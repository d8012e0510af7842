package scenario

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// ErrInvalid is what errors.Is finds in errors about a scenario that is not valid.
var ErrInvalid = errors.New("invalid scenario")

// InvalidError tells all faults of a scenario at once, each with its line where it has one. errors.Is(err, ErrInvalid) is true for it.
type InvalidError struct {
	Name   string // of the file, if there is one
	Faults []topology.Fault
}

func (e *InvalidError) Error() string {
	lines := []string{"invalid scenario " + e.Name + ":"}
	if e.Name == "" {
		lines[0] = "invalid scenario:"
	}
	for _, f := range e.Faults {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n  ")
}

// Unwrap returns ErrInvalid.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// Defaults returns a scenario in which nothing is said. Parse begins with it.
func Defaults() *Scenario {
	spread, detours, jitter := 0.11, 0.03, true
	return &Scenario{
		Step: Duration(time.Minute), Seeds: []uint64{1}, Policies: []PolicyName{Ours},
		World: World{
			Scopes:  ScopesOurs,
			Geo:     GeoCity,
			Clients: Clients{Rate: 0.02, Body: 1000, Fresh: 0.1, Resolvers: Resolvers{Farm: 1, At: slices.Clone(PublicSites)}},
			Network: Network{Spread: &spread, Detours: &detours, Jitter: &jitter, MTU: 1500, Catchment: Catchment{Far: 0.2}},
		},
	}
}

// PublicSites are where public resolvers are, unless a scenario says otherwise: twelve large exchanges.
var PublicSites = []string{"IAD", "FRA", "AMS", "LHR", "SIN", "NRT", "HKG", "SJC", "GRU", "SYD", "BOM", "JNB"}

// Parse reads a scenario by itself: a topology or a matrix that it names is not read, which Load does. It fills in defaults. The error is an
// *InvalidError that tells all faults.
func Parse(text []byte) (*Scenario, error) {
	return parse("", text, func(*Scenario) []topology.Fault { return nil })
}

// parse reads a scenario, and by beside what its world and those of its variants name.
func parse(name string, text []byte, beside func(*Scenario) []topology.Fault) (*Scenario, error) {
	s := Defaults()
	faults := topology.Read(text, s).Faults(s.Validate())
	if len(faults) == 0 {
		faults = append(beside(s), s.readVariants(text, beside)...)
	}
	if len(faults) > 0 {
		return nil, &InvalidError{name, faults}
	}
	return s, nil
}

// Load reads the scenario of a name, and the files that it names, whose paths are relative to it, by read. The error is an *InvalidError for
// what is read and not valid.
func Load(name string, read func(name string) ([]byte, error)) (*Scenario, error) {
	text, err := read(name)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	return parse(name, text, func(s *Scenario) (faults []topology.Fault) {
		beside := func(file string) ([]byte, error) {
			if !path.IsAbs(file) {
				file = path.Join(path.Dir(name), file)
			}
			return read(file)
		}
		if file := s.World.File; file != "" {
			s.World.Topology, faults = readTopology(file, beside)
		}
		if file := s.World.Network.Matrix; file != "" {
			text, err := beside(file)
			if err == nil {
				s.World.Network.Measured, err = ParseMatrix(text)
			}
			if err != nil {
				faults = append(faults, topology.Fault{Path: "world.network.matrix", Message: fmt.Sprintf("%s: %v", file, err)})
			}
		}
		return faults
	})
}

func readTopology(file string, read func(name string) ([]byte, error)) (*topology.Topology, []topology.Fault) {
	at := func(err error) []topology.Fault {
		return []topology.Fault{{Path: "world.topology", Message: fmt.Sprintf("%s: %v", file, err)}}
	}
	text, err := read(file)
	if err != nil {
		return nil, at(err)
	}
	t, err := topology.Parse(text)
	if err == nil {
		if faults := t.Validate(); len(faults) > 0 {
			err = &topology.InvalidError{Faults: faults}
		} else if len(t.Services) == 0 {
			err = errors.New("there is no service in it")
		}
	}
	if err != nil {
		return nil, at(err)
	}
	return t, nil
}
