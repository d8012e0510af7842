package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMetricsAreDocumented holds the tables of metrics in the docs to what processes tell.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	known := knownMetrics(t)
	for _, test := range []struct{ doc, names string }{
		{"dns-node.md", `isochrone_(?:dns|etcd|topology|geo|secrets|config|certificate|build|ready|probing|verdict|vantages?)[a-z0-9_]*`},
		{"intake.md", `isochrone_(?:intake|forward|spool|peer)_[a-z0-9_]+`},
		{"bgp.md", `isochrone_bgp_[a-z0-9_]+`},
		{"operations.md", `isochrone_control_[a-z0-9_]+`},
	} {
		text, err := os.ReadFile("../../docs/" + test.doc)
		if err != nil {
			t.Fatal(err)
		}
		var documented []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "|") {
				for _, name := range regexp.MustCompile("`("+test.names+")`").FindAllStringSubmatch(line, -1) {
					documented = append(documented, name[1])
				}
			}
		}
		whole := regexp.MustCompile("^" + test.names + "$")
		for name := range known {
			ofHistogram := slices.ContainsFunc([]string{"_bucket", "_sum", "_count"}, func(suffix string) bool {
				base, ok := strings.CutSuffix(name, suffix)
				return ok && known[base] != nil
			})
			if whole.MatchString(name) && !ofHistogram && !slices.Contains(documented, name) {
				t.Errorf("docs/%s lacks %s", test.doc, name)
			}
		}
		for _, name := range documented {
			if known[name] == nil {
				t.Errorf("docs/%s has %s, which there is not", test.doc, name)
			}
		}
	}
}
