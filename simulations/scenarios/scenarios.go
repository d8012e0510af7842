// Package scenarios has the scenarios that are ready to run, each a file of YAML with assertions, and a page in docs/simulations.md.
package scenarios

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/internal/spelling"
	"github.com/isochrone/isochrone/simulations/scenario"
)

//go:embed *.yaml
var files embed.FS

// Names returns the names of all of them, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // it is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Load reads one of them. The error names those that there are.
func Load(name string) (*scenario.Scenario, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no scenario %q; %s", name, spelling.Suggest(name, Names()))
	}
	return scenario.Load(name+".yaml", func(name string) ([]byte, error) { return fs.ReadFile(files, name) })
}
