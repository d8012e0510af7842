// Package rooms keeps the arrows between the rooms of the house; see docs/architecture.md.
package rooms

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/isochrone/isochrone/"

// mayImport names, for each room, the rooms it may know. Each may also import internal/.
var mayImport = map[string][]string{
	"topology":     {},
	"health":       {"topology"},
	"router":       {"health", "topology"},
	"dns":          {"router", "topology"},
	"dataplane":    {"router", "health", "topology"},
	"controlplane": {"router", "health", "topology"},
	"simulations":  {"topology", "health", "router", "dns", "dataplane", "controlplane"},
	"cmd":          {"topology", "health", "router", "dns", "dataplane", "controlplane", "simulations"},
	"internal":     {},
}

func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := room(pkg.ImportPath)
		seen[from] = true
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s is in no room: the rooms are those of docs/architecture.md", pkg.ImportPath)
			continue
		}
		for _, imported := range pkg.Imports {
			to := room(imported)
			if to == "" || to == from || to == "internal" || slices.Contains(allowed, to) {
				continue
			}
			t.Errorf("%s imports %s: %s may know only %q. What two rooms need belongs in the lower one, or in internal/ when it is nobody's domain.",
				pkg.ImportPath, imported, from, allowed)
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("room %s has no package", name)
		}
	}
}

// room returns the room of a package, and nothing for a package of another module.
func room(path string) string {
	rest, ours := strings.CutPrefix(path, module)
	if !ours {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
