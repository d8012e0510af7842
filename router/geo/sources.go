package geo

import (
	"fmt"
	"os"
	"time"

	"github.com/isochrone/isochrone/router"
)

// Sources are the files that clients are placed by.
type Sources struct {
	Places string // City or Country database; empty for the built-in one
	ASNs   string // ASN database; empty for none
	Table  string // CSV of the operator's own prefixes; empty for none
}

// Load opens the files and makes an atlas of them. A file that is missing, damaged or of another kind is an error.
func (s Sources) Load() (*router.Atlas, Info, error) {
	db, err := Default()
	if s.Places != "" {
		if db, err = Open(s.Places); err == nil {
			err = db.Check()
		}
	}
	if err != nil {
		return nil, Info{}, err
	}
	var overlays []router.Overlay
	if s.ASNs != "" {
		asns, err := OpenASN(s.ASNs)
		if err != nil {
			return nil, Info{}, err
		}
		overlays = append(overlays, asns)
	}
	if s.Table != "" {
		table, err := OpenTable(s.Table)
		if err != nil {
			return nil, Info{}, err
		}
		overlays = append(overlays, table)
	}
	atlas, err := router.NewAtlas(db, overlays...)
	return atlas, db.Info(), err
}

// Version tells one state of the files from another: it changes when one of them is written.
func (s Sources) Version() string {
	var version string
	for _, path := range []string{s.Places, s.ASNs, s.Table} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			version += path + ": " + err.Error() + "\n"
			continue
		}
		version += fmt.Sprintf("%s %d %s\n", path, info.Size(), info.ModTime().Format(time.RFC3339Nano))
	}
	return version
}
