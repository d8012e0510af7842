package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
)

// sourcesInterval is how often the files that clients are placed by are looked at.
const sourcesInterval = 2 * time.Second

// sourceFlags name the files that clients are placed by.
type sourceFlags struct {
	geo    geo.Sources
	rttCSV string
}

func (f *sourceFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.geo.Places, "geoip", "", "geo database `file` (GeoLite2 or GeoIP2, City or Country) instead of the built-in one")
	flags.StringVar(&f.geo.ASNs, "geoip-asn", "", "ASN database `file` (GeoLite2 or GeoIP2), for rules about ASNs")
	flags.StringVar(&f.geo.Table, "geo-table", "", "CSV `file` of your own prefixes: prefix,lat,lon,country,city,asn")
	flags.StringVar(&f.rttCSV, "rtt-csv", "", "CSV `file` of measured round-trip times: prefix,pop,rtt_ms,samples")
}

// placing is what the files of sourceFlags say.
type placing struct {
	atlas    *router.Atlas
	info     geo.Info
	measured *rtt.Map          // nil for none
	instead  map[string]string // what is used instead of a file that is broken, in words, by the file's flag
}

// replaced says which files are broken, and what is used instead.
func (p *placing) replaced() string {
	var texts []string
	for _, flag := range slices.Sorted(maps.Keys(p.instead)) {
		texts = append(texts, flag+": "+p.instead[flag])
	}
	return strings.Join(texts, ", ")
}

// repaired returns a copy without what is said of some flags.
func (p *placing) repaired(flags []string) *placing {
	copied := *p
	copied.instead = maps.Clone(p.instead)
	maps.DeleteFunc(copied.instead, func(flag, _ string) bool { return slices.Contains(flags, flag) })
	return &copied
}

// The flags that name files, by what is made of them.
var (
	geoFlags  = []string{"geoip", "geoip-asn", "geo-table"}
	pingFlags = []string{"rtt-csv"}
)

// load reads all files.
func (f *sourceFlags) load() (*placing, error) {
	p := new(placing)
	var err error
	if p.atlas, p.info, err = f.geo.Load(); err != nil {
		return nil, fmt.Errorf("--geoip, --geoip-asn or --geo-table: %w", err)
	}
	p.measured, err = f.measured()
	return p, err
}

func (f *sourceFlags) measured() (*rtt.Map, error) {
	if f.rttCSV == "" {
		return nil, nil
	}
	file, err := os.Open(f.rttCSV)
	if err != nil {
		return nil, fmt.Errorf("--rtt-csv: %w", err)
	}
	defer file.Close()
	measured, err := rtt.ReadCSV(file)
	if err != nil {
		return nil, fmt.Errorf("--rtt-csv: %s: %w", f.rttCSV, err)
	}
	return measured, nil
}

// versions tell one state of the files from another.
func (f *sourceFlags) versions() (places, pings string) {
	return f.geo.Version(), geo.Sources{Table: f.rttCSV}.Version()
}

// sources keeps a router's atlas and its measured times as the files say.
type sources struct {
	log     *slog.Logger
	live    *router.Live
	kept    *keptSources // nil when no copies are kept
	current atomic.Pointer[placing]
	changed chan sourceFlags // other files, by reopen
	flags   sourceFlags
}

// openSources reads the files and makes the router that they place clients for. With copies that are kept, a broken file is
// replaced by its last good copy, or does without; else it is an error.
func openSources(f sourceFlags, kept *keptSources, log *slog.Logger) (*sources, error) {
	s := &sources{log: log, kept: kept, flags: f, changed: make(chan sourceFlags)}
	places, pings := f.versions()
	p, err := f.load()
	switch {
	case err == nil:
		kept.keep(f, places, geoFlags)
		kept.keep(f, pings, pingFlags)
	case kept == nil:
		return nil, err
	default:
		if p, err = kept.load(f); err != nil {
			return nil, err
		}
	}
	s.current.Store(p)
	s.live = router.NewLive(p.atlas)
	return s, s.live.Measured(p.measured, time.Now())
}

// info tells what the geo database is.
func (s *sources) info() geo.Info { return s.current.Load().info }

// reopen takes other files, which have been loaded, while watch runs.
func (s *sources) reopen(ctx context.Context, f sourceFlags, p *placing) error {
	if err := errors.Join(s.live.Atlas(p.atlas, time.Now()), s.live.Measured(p.measured, time.Now())); err != nil {
		return err
	}
	s.current.Store(p)
	select {
	case s.changed <- f:
	case <-ctx.Done():
	}
	return nil
}

// watch reads the files again when one of them has been written. What cannot be used is told, and the old stays.
func (s *sources) watch(ctx context.Context) error {
	known, knownPings := s.flags.versions()
	look := time.NewTicker(sourcesInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case s.flags = <-s.changed:
			known, knownPings = s.flags.versions()
			s.kept.keep(s.flags, known, geoFlags)
			s.kept.keep(s.flags, knownPings, pingFlags)
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		version, pings := s.flags.versions()
		if version != known && s.renewAtlas() {
			s.kept.keep(s.flags, version, geoFlags)
		}
		if pings != knownPings && s.renewMeasured() {
			s.kept.keep(s.flags, pings, pingFlags)
		}
		known, knownPings = version, pings
	}
}

func (s *sources) renewAtlas() bool {
	atlas, info, err := s.flags.geo.Load()
	if err == nil {
		err = s.live.Atlas(atlas, time.Now())
	}
	if err != nil {
		s.log.Error("the new geo database cannot be used, the old one stays", "error", err)
		return false
	}
	p := s.current.Load().repaired(geoFlags)
	p.atlas, p.info = atlas, info
	s.current.Store(p)
	s.log.Info("new geo database in force", "type", info.Type, "built", info.Built)
	return true
}

func (s *sources) renewMeasured() bool {
	measured, err := s.flags.measured()
	if err == nil {
		err = s.live.Measured(measured, time.Now())
	}
	if err != nil {
		s.log.Error("the new round-trip times cannot be used, the old ones stay", "error", err)
		return false
	}
	p := s.current.Load().repaired(pingFlags)
	p.measured = measured
	s.current.Store(p)
	s.log.Info("new round-trip times in force", "prefixes", measured.Len())
	return true
}
