package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/worldmap"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

func newMapCommand() *cobra.Command {
	var (
		t                      target
		file, service, by, svg string
		suppose                []string
		step                   float64
	)
	command := &cobra.Command{
		Use:   "map --svg FILE",
		Short: "Draw the world coloured by the PoP that answers, or by the round-trip time to it",
		Long: `Asks the router for every place on land, as DNS would for clients there who have their place in
the geo database, and draws the answers. All PoPs are taken to be well; --if says what is not.
The topology is that of a running world, or of a file.`,
		Example: `  isochrone map --svg world.svg
  isochrone map --svg rtt.svg --by rtt -f world.yaml --if "pop sin1 down"`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var (
				top = new(topology.Topology)
				err error
			)
			if file != "" {
				top, err = readDocument(file, command.InOrStdin())
			} else {
				err = t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
					stored, err := ops.Topology(ctx)
					if err == nil {
						top = stored.Topology
					}
					return err
				})
			}
			if err != nil {
				return err
			}
			picture, err := drawMap(top, service, by, step, suppose)
			if err != nil {
				return err
			}
			if svg == "-" {
				return picture.SVG(command.OutOrStdout())
			}
			return writeFile(svg, picture.SVG)
		},
	}
	t.register(command)
	command.Flags().StringVarP(&file, "file", "f", "", "topology `file` instead of a running world")
	command.Flags().StringVar(&service, "service", "", "`host` name of the service (default: the first one)")
	command.Flags().StringVar(&by, "by", "pop", "`colour` by pop or by rtt")
	command.Flags().StringVar(&svg, "svg", "", "`file` to write; - for standard output")
	command.Flags().Float64Var(&step, "step", 1, "`degrees` of a piece of land, 0.5..10")
	command.Flags().StringArrayVar(&suppose, "if", nil, "what would be `if`: \"pop sin1 down\", \"pop new1 at 1.35,103.8\" (repeatable)")
	_ = command.MarkFlagRequired("svg")
	return command
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// gridNet is where each piece of land has a /48 of its own.
var gridNet = binary.BigEndian.Uint64([]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0})

// grid is a geo database of pieces of land.
type grid []worldmap.Cell

func (g grid) prefix(i int) netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], gridNet+uint64(i)<<16)
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// Networks implements router.Geo.
func (g grid) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		for i, c := range g {
			at := topology.Location{LatDeg: c.LatDeg, LonDeg: c.LonDeg, Country: c.Country}
			if !yield(g.prefix(i), &router.Place{Location: at, Continent: c.Continent}) {
				return
			}
		}
	}
}

// drawMap asks the router for every piece of land.
func drawMap(top *topology.Topology, service, by string, step float64, suppose []string) (*worldmap.Picture, error) {
	if by != "pop" && by != "rtt" {
		return nil, fmt.Errorf("--by %q is neither pop nor rtt", by)
	}
	if !(step >= 0.5 && step <= 10) {
		return nil, fmt.Errorf("--step %v is not in 0.5..10", step)
	}
	if len(top.Services) == 0 {
		return nil, fmt.Errorf("the topology has no service")
	}
	service = cmp.Or(strings.TrimSuffix(service, "."), slices.Min(slices.Collect(maps.Keys(top.Services))))
	land := grid(worldmap.Land(step))
	view, err := landView(top, land, suppose)
	if err != nil {
		return nil, err
	}
	id, ok := view.Table.Service(service)
	if !ok {
		return nil, fmt.Errorf("the topology has no service %s; it has %s", service, strings.Join(slices.Sorted(maps.Keys(top.Services)), ", "))
	}
	picture := &worldmap.Picture{Step: step, Cells: land, Colour: make([]int, len(land))}
	answers := make([]router.Answer, len(land))
	for i := range land {
		answers[i] = router.Decide(view, id, router.Either, land.prefix(i), nil)
	}
	if by == "pop" {
		picture.Title = "The world by the PoP of " + service
		byPoP(picture, view, answers)
	} else {
		picture.Title = "The world by predicted round-trip time to the PoP of " + service
		byRTT(picture, view, land, answers)
	}
	for _, c := range view.Table.Candidates(id) {
		name, pop := view.Table.PoP(c)
		picture.Marks = append(picture.Marks, worldmap.Mark{LatDeg: pop.Location.LatDeg, LonDeg: pop.Location.LonDeg, Name: name})
	}
	return picture, nil
}

// landView is a view for clients on every piece of land.
func landView(top *topology.Topology, land grid, suppose []string) (*router.View, error) {
	atlas, err := router.NewAtlas(land)
	if err != nil {
		return nil, err
	}
	table, err := router.Compile(&topology.Snapshot{Topology: top}, atlas, nil)
	if err != nil {
		return nil, err
	}
	return router.Suppose(&router.View{Table: table, State: router.NewState(table, router.Inputs{Now: time.Now()})}, suppose...)
}

// unanswered is the colour of land that gets no answer.
const unanswered = "#b8b8b8"

// byPoP gives each PoP a hue of its own. Hues go round by the golden angle, so that PoPs of neighbouring names differ.
func byPoP(p *worldmap.Picture, view *router.View, answers []router.Answer) {
	p.Legend = []worldmap.Entry{{Colour: unanswered}}
	numbers := map[router.Choice]int{}
	for c := range router.Choice(view.Table.PoPs()) {
		name, _ := view.Table.PoP(c)
		numbers[c] = len(p.Legend)
		hue, light := float64(c)*137.508, 45+10*(int(c)%3)
		p.Legend = append(p.Legend, worldmap.Entry{Colour: fmt.Sprintf("hsl(%.0f 55%% %d%%)", hue-360*float64(int(hue/360)), light), Text: name})
	}
	for i, a := range answers {
		if a.N > 0 {
			p.Colour[i] = numbers[a.Choices[0]]
		}
	}
}

func byRTT(p *worldmap.Picture, view *router.View, land grid, answers []router.Answer) {
	p.Legend = append([]worldmap.Entry{{Colour: unanswered}}, worldmap.Bands()...)
	meter := view.Table.Meter()
	for i, a := range answers {
		if a.N > 0 {
			p.Colour[i] = 1 + worldmap.Band(meter.Milliseconds(land.prefix(i).Addr(), a.Choices[0]))
		}
	}
}
