package controlplane

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/isochrone/isochrone/internal/worldmap"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// colourStep is the side of a cell in degrees.
const colourStep = 2.0

// land is a geo database of cells of land, of which each has a /48 of its own in 2001:db8::/32.
type land []worldmap.Cell

func (l land) prefix(i int) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], 0x2001_0db8_0000_0000+uint64(i)<<16)
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// Networks implements router.Geo.
func (l land) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, c := range l {
			at := topology.Location{LatDeg: c.LatDeg, LonDeg: c.LonDeg, Country: c.Country}
			if !yield(l.prefix(i), &router.Place{Location: at, Continent: c.Continent}) {
				return
			}
		}
	}
}

// cells are the world's land, with its atlas.
var cells = sync.OnceValues(func() (land, *router.Atlas) {
	l := land(worldmap.Land(colourStep))
	atlas, err := router.NewAtlas(l)
	if err != nil {
		panic("controlplane: " + err.Error()) // cells are in order
	}
	return l, atlas
})

// colouring keeps maps of the newest view.
type colouring struct {
	mu    sync.Mutex
	table *router.Table // for land, of the topology that is in its snapshot
	view  *router.View  // that the maps are of
	maps  map[ColouredRequest]*Coloured
}

// maxColoured is how many maps of one view are kept.
const maxColoured = 64

// Coloured draws the world's land by who would be answered which PoP there, with the view in force. Round-trip times are those of the
// model: a cell is a place and no network. The errors are ErrInvalid, ErrNotFound and ErrNotReady.
func (s *Service) Coloured(_ context.Context, request ColouredRequest) (*Coloured, error) {
	view := s.View()
	if view == nil {
		return nil, errNoView
	}
	if request.By = cmp.Or(request.By, "pop"); request.By != "pop" && request.By != "rtt" {
		return nil, fmt.Errorf("%w: by %q is neither pop nor rtt", ErrInvalid, request.By)
	}
	family, err := parseFamily(request.Family)
	if err != nil {
		return nil, err
	}
	request.Family = family.String()
	services := view.Table.Snapshot().Topology.Services
	if request.Service = strings.TrimSuffix(strings.ToLower(request.Service), "."); request.Service == "" && len(services) > 0 {
		request.Service = slices.Min(slices.Collect(maps.Keys(services)))
	}
	c := &s.coloured
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view != view || len(c.maps) >= maxColoured {
		c.view, c.maps = view, map[ColouredRequest]*Coloured{}
	}
	if known := c.maps[request]; known != nil {
		return known, nil
	}
	top := view.Table.Snapshot().Topology
	l, atlas := cells()
	if c.table == nil || c.table.Snapshot().Topology != top {
		if c.table, err = view.Table.Elsewhere(atlas, top); err != nil {
			return nil, err
		}
	}
	drawn, err := colour(view.On(c.table, nil), l, request, family)
	if err != nil {
		return nil, err
	}
	drawn.Revision = view.Table.Snapshot().Revision
	c.maps[request] = drawn
	return drawn, nil
}

func colour(view *router.View, l land, request ColouredRequest, family router.Family) (*Coloured, error) {
	id, ok := view.Table.Service(request.Service)
	if !ok {
		return nil, noService(view, request.Service)
	}
	drawn := &Coloured{PoPs: []string{}, StepDeg: colourStep, Rows: []Row{}}
	for c := range view.Table.PoPs() {
		name, _ := view.Table.PoP(router.Choice(c))
		drawn.PoPs = append(drawn.PoPs, name)
	}
	meter := view.Table.Meter()
	for i, cell := range l {
		pop, ms := -1.0, 0.0
		if a := router.Decide(view, id, family, l.prefix(i), nil); a.N > 0 {
			pop, ms = float64(a.Choices[0]), tidyMS(meter.Milliseconds(l.prefix(i).Addr(), a.Choices[0]), request.By)
		}
		if n := len(drawn.Rows); n == 0 || drawn.Rows[n-1].LatDeg != cell.LatDeg {
			drawn.Rows = append(drawn.Rows, Row{LatDeg: cell.LatDeg})
		}
		drawn.Rows[len(drawn.Rows)-1].add(cell.LonDeg, pop, ms)
	}
	return drawn, nil
}

// tidyMS rounds a time: by PoP to ten milliseconds, so that runs are long.
func tidyMS(ms float64, by string) float64 {
	step := 1.0
	if by == "pop" {
		step = 10
	}
	return math.Round(ms/step) * step
}

// add appends a cell to a row: to its last run, if it goes on there.
func (r *Row) add(lon, pop, ms float64) {
	if n := len(r.Runs); n > 0 {
		last := &r.Runs[n-1]
		if last[2] == pop && last[3] == ms && math.Abs(last[0]+last[1]*colourStep-lon) < colourStep/4 {
			last[1]++
			return
		}
	}
	r.Runs = append(r.Runs, [4]float64{lon, 1, pop, ms})
}
