package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/router/rtt"
)

// sourcesInterval is how often the files that clients are placed by are looked at.
const sourcesInterval = 2 * time.Second

// openSources reads the files of --geoip, --geoip-asn, --geo-table and --rtt-csv.
func (w *world) openSources() error {
	atlas, info, err := w.options.geo.Load()
	if err != nil {
		return fmt.Errorf("--geoip, --geoip-asn or --geo-table: %w", err)
	}
	w.atlas = atlas
	w.geo.Store(&info)
	if w.measured, err = w.openMeasured(); err != nil {
		return fmt.Errorf("--rtt-csv: %w", err)
	}
	return nil
}

func (w *world) openMeasured() (*rtt.Map, error) {
	if w.options.rttCSV == "" {
		return nil, nil
	}
	file, err := os.Open(w.options.rttCSV)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	measured, err := rtt.ReadCSV(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.options.rttCSV, err)
	}
	return measured, nil
}

// watchSources reads the files again when one of them has been written. What cannot be used is told, and the old stays.
func (w *world) watchSources(ctx context.Context) error {
	files, pings := w.options.geo, geo.Sources{Table: w.options.rttCSV}
	known, knownPings := files.Version(), pings.Version()
	look := time.NewTicker(sourcesInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if version := files.Version(); version != known {
			known = version
			atlas, info, err := files.Load()
			if err == nil {
				err = w.live.Atlas(atlas, time.Now())
			}
			if err != nil {
				w.log.Error("the new geo database cannot be used, the old one stays", "error", err)
				continue
			}
			w.geo.Store(&info)
			w.log.Info("new geo database in force", "type", info.Type, "built", info.Built)
		}
		if version := pings.Version(); version != knownPings {
			knownPings = version
			measured, err := w.openMeasured()
			if err == nil {
				err = w.live.Measured(measured, time.Now())
			}
			if err != nil {
				w.log.Error("the new round-trip times cannot be used, the old ones stay", "error", err)
				continue
			}
			w.log.Info("new round-trip times in force", "prefixes", measured.Len())
		}
	}
}
