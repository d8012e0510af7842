package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestZoneImport(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	file := filepath.Join(t.TempDir(), "db")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const apex = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.example.org.\n"
	refused := func(zone string, flags ...string) string {
		t.Helper()
		return mustFail(t, append([]string{"zone", "import", file, "--zone", zone, "--dir", r.dir}, flags...)...)
	}

	write(apex + "www A 192.0.2.1\n")
	said := r.run(t, "zone", "import", file, "--zone", "example.net", "-m", "moved here")
	for _, want := range []string{"kept: 1 A\n", "add zones/example.net\n", "applied at revision "} {
		if !strings.Contains(said, want) {
			t.Errorf("import says %q, want %q", said, want)
		}
	}
	if got := r.run(t, "topology", "get", "zones/example.net"); !strings.Contains(got, "records:\n  - www A 192.0.2.1\n") {
		t.Errorf("stored is %s", got)
	}
	if said := refused("example.net"); !strings.Contains(said, "zone example.net is stored already: --replace replaces it") {
		t.Errorf("import again says %s", said)
	}

	// What is imported with a zone that is stored keeps what the file does not say.
	write("$TTL 60\nwww A 192.0.2.2\n")
	r.run(t, "zone", "import", file, "--zone", "example.net", "--replace")
	exported := r.run(t, "zone", "export", "example.net")
	if !strings.Contains(exported, "www A 192.0.2.2\n") || !strings.Contains(exported, "@ NS ns.example.org.\n") {
		t.Errorf("exported is %s", exported)
	}
	write(exported)
	if said := r.run(t, "zone", "import", file, "--zone", "example.net", "--replace"); !strings.Contains(said, "nothing to change") {
		t.Errorf("importing the export says %s", said)
	}

	// What stands in the way of the topology is told with the line of the file.
	write(apex + "\nintake A 192.0.2.1\n")
	if said := refused("isochrone.test", "--replace"); !strings.Contains(said, "nothing was changed") || !strings.Contains(said, file+`:5: "intake A 192.0.2.1"`) {
		t.Errorf("import in the way of a service says %s", said)
	}
	var large strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&large, "a%d A 192.0.2.1\n", i)
	}
	write(apex + large.String())
	eventually(t, "a large zone to be refused", func() error { // it is no small work for etcd either, which has 5 s to be read
		if said := refused("large.example.net"); !strings.Contains(said, "too large for one object") || !strings.Contains(said, "make zones of its own") {
			return fmt.Errorf("import says %.500s", said)
		}
		return nil
	})
	if said := mustFail(t, "zone", "export", "nowhere.example", "--dir", r.dir); !strings.Contains(said, "there is no zone nowhere.example") {
		t.Errorf("export says %s", said)
	}
}
