package bgp

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// maxStandings bounds the prefixes that a node tells others of.
const maxStandings = 256

// EncodeStandings returns what a node tells the others: of several prefixes how it stands. Equal standings have equal texts.
func EncodeStandings(all map[netip.Prefix]Standing) []byte {
	text, err := json.Marshal(all)
	if err != nil {
		panic("bgp: " + err.Error()) // prefixes and texts can be written
	}
	return text
}

// ParseStandings reads what another node tells. Standings of newer programs, which this one does not know, count as Left: such a node is not to
// be relied on.
func ParseStandings(text []byte) (map[netip.Prefix]Standing, error) {
	var all map[netip.Prefix]Standing
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("not what a node announces by BGP: %w", err)
	}
	if len(all) > maxStandings {
		return nil, fmt.Errorf("%d prefixes are too many: at most %d are taken", len(all), maxStandings)
	}
	for prefix, standing := range all {
		if !prefix.IsValid() || prefix != prefix.Masked() {
			return nil, fmt.Errorf("%v is not a prefix in its canonical form", prefix)
		}
		if !slices.Contains([]Standing{Stays, Wants, Dead, Left}, standing) {
			all[prefix] = Left
		}
	}
	return all, nil
}
