package payload

import (
	"slices"
	"strings"

	"github.com/isochrone/isochrone/topology"
)

// maxPath is the longest path that is sent elsewhere, in octets.
const maxPath = 2048

// places are the paths of a service that belong to clusters.
type places struct {
	exact  map[string]string
	prefix []topology.Elsewhere // paths that ended in /*, which are cut before the slash; the longest first
}

func compilePlaces(list []topology.Elsewhere) *places {
	p := &places{exact: map[string]string{}}
	for _, e := range list {
		if before, ok := strings.CutSuffix(e.Path, "/*"); ok {
			p.prefix = append(p.prefix, topology.Elsewhere{Path: before, To: e.To})
		} else {
			p.exact[e.Path] = e.To
		}
	}
	slices.SortFunc(p.prefix, func(a, b topology.Elsewhere) int { return len(b.Path) - len(a.Path) })
	return p
}

// Place returns the path at a cluster of a path that was asked for: by its own entry, else by the longest /* that it is at or below. An entry
// without To keeps the path; To with /* keeps what is below. The path is one without query, as it was sent, with its percent signs.
// Paths that would be another one after cleaning, or are not printable ASCII, belong to nobody: the result goes into a Location.
func (c *Checker) Place(path string) (to string, ok bool) {
	p := c.places
	if len(p.exact) == 0 && len(p.prefix) == 0 || !isClean(path) {
		return "", false
	}
	if to, ok := p.exact[path]; ok {
		if to == "" {
			to = path
		}
		return strings.TrimSuffix(to, "/*"), true
	}
	for _, e := range p.prefix {
		below, ok := strings.CutPrefix(path, e.Path)
		if !ok || below != "" && below[0] != '/' {
			continue
		}
		if e.To == "" {
			return path, true
		}
		if before, ok := strings.CutSuffix(e.To, "/*"); ok {
			return before + below, true
		}
		return e.To, true
	}
	return "", false
}

// isClean reports whether a path has no dot segments (RFC 3986 section 5.2.4), no empty ones, and nothing that a URL has not.
func isClean(path string) bool {
	if len(path) > maxPath || !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return false
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}?#", c) >= 0 {
			return false
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if dots := strings.ReplaceAll(strings.ReplaceAll(segment, "%2e", "."), "%2E", "."); dots == "." || dots == ".." {
			return false
		}
	}
	return true
}
