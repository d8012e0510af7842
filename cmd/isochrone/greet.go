package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/isochrone/isochrone/internal/statedir"
)

// greet prints where everything is and what to try.
func (w *world) greet(out io.Writer, took time.Duration) {
	fmt.Fprintf(out, "isochrone is up after %.1f s; its state is in %s\n\n", took.Seconds(), w.options.dir)
	snap := w.node.Snapshot()
	table := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  DNS\t%s\tUDP and TCP, zones: %s\n", w.known.DNS, strings.Join(slices.Sorted(maps.Keys(snap.Topology.Zones)), ", "))
	fmt.Fprintf(table, "  operators' page\t%s\tand the control API below /v1/\n", w.known.API)
	fmt.Fprintf(table, "  etcd\t%s\ttopology under %stopology/\n", w.known.Etcd, storeRoot)
	for _, name := range slices.Sorted(maps.Keys(w.known.PoPs)) {
		note := ""
		if w.pops[name] == nil {
			note = ", not run here"
		}
		fmt.Fprintf(table, "  PoP %s\t%s\t%s%s\n", name, w.known.PoPs[name], snap.Topology.PoPs[name].Location.City, note)
	}
	for _, name := range slices.Sorted(maps.Keys(w.known.Clusters)) {
		note := ""
		if w.clusters[name] == nil {
			note = ", not run here"
		}
		fmt.Fprintf(table, "  cluster %s\t%s\t%s%s\n", name, w.known.Clusters[name], snap.Topology.Clusters[name].Location.City, note)
	}
	table.Flush()
	fmt.Fprintf(out, "\n  API key of the example world: %s\n  The page asks for a token, which stands in %s\n", w.known.APIKey, w.options.dir.path(tokenFile))
	if info := w.sources.info(); info.CountryOnly {
		fmt.Fprintf(out, "  Clients are placed by country, which is coarse in %s; --geoip takes a City database.\n",
			strings.Join(info.CoarseCountries, ", "))
	}
	self, dir := w.self(), w.dirFlag()
	host, port, _ := net.SplitHostPort(w.known.DNS)
	services, pops := slices.Sorted(maps.Keys(snap.Topology.Services)), slices.Sorted(maps.Keys(snap.Topology.PoPs))
	if len(services) == 0 || len(pops) == 0 {
		return
	}
	service, pop := services[0], pops[0]
	if snap.Topology.PoPs["sin1"] != nil {
		pop = "sin1"
	}
	fmt.Fprintf(out, "\nTo try in another terminal:\n\n")
	fmt.Fprintf(out, "  dig @%s -p %s %s +subnet=%s +short    # a client in Singapore\n", host, port, service, sendPlaces["singapore"])
	fmt.Fprintf(out, "  dig @%s -p %s %s +subnet=%s +short    # a client in Frankfurt\n", host, port, service, sendPlaces["frankfurt"])
	fmt.Fprintf(out, "  %s send --from singapore%s\n", self, dir)
	fmt.Fprintf(out, "  %s drain %s --for 1h --reason trying%s    # and \"undrain %s\"\n", self, pop, dir, pop)
	fmt.Fprintf(out, "  %s simulate singapore-frankfurt\n\n", self)
}

// self is how a person calls this program: as they did, or by "go run".
func (w *world) self() string {
	if path, err := os.Executable(); err == nil && strings.Contains(path, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/isochrone"
	}
	return os.Args[0]
}

// dirFlag is the flag that other commands need to find this world.
func (w *world) dirFlag() string {
	if string(w.options.dir) == statedir.Default() {
		return ""
	}
	return " --dir " + string(w.options.dir)
}
