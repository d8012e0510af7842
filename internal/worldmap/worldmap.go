// Package worldmap draws the world's land in colours, as SVG. It knows where land is and of which country, and the colours of
// round-trip times (Bands); what other colours mean its callers know.
package worldmap

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed countries.txt
var countriesText string

// outline is the border of a part of a country.
type outline struct {
	country, continent     string
	corners                [][2]float64 // longitude and latitude in degrees
	west, east, south, top float64      // longitudes may go beyond 180
}

// outlines are those of all countries; small ones have none.
var outlines = sync.OnceValue(func() []outline {
	var all []outline
	for line := range strings.Lines(countriesText) {
		fields := strings.Fields(line)
		if fields[0] == "#" {
			continue
		}
		o := outline{country: fields[0], continent: fields[1], west: 540, east: -540, south: 90, top: -90}
		for i := 2; i+1 < len(fields); i += 2 {
			lon, errLon := strconv.Atoi(fields[i])
			lat, errLat := strconv.Atoi(fields[i+1])
			if errLon != nil || errLat != nil {
				panic("worldmap: " + line)
			}
			at := [2]float64{float64(lon) / 10, float64(lat) / 10}
			if n := len(o.corners); n > 0 { // over the date line longitudes go on
				at[0] -= 360 * math.Round((at[0]-o.corners[n-1][0])/360)
			}
			o.corners = append(o.corners, at)
			o.west, o.east = min(o.west, at[0]), max(o.east, at[0])
			o.south, o.top = min(o.south, at[1]), max(o.top, at[1])
		}
		all = append(all, o)
	}
	return all
})

// holds reports whether a place is inside, by how often a line from it to the north crosses the border.
func (o *outline) holds(lon, lat float64) bool {
	if lon < o.west || lon > o.east || lat < o.south || lat > o.top {
		return false
	}
	inside := false
	for i, a := range o.corners {
		b := o.corners[(i+1)%len(o.corners)]
		if (a[0] > lon) != (b[0] > lon) && lat < a[1]+(b[1]-a[1])*(lon-a[0])/(b[0]-a[0]) {
			inside = !inside
		}
	}
	return inside
}

// The part of the world that is drawn: without the Antarctic, where nobody is.
const (
	southEnd = -57.0
	northEnd = 84.0
)

// Cell is a piece of land, a square of some degrees.
type Cell struct {
	LatDeg, LonDeg     float64 // of its middle
	Country, Continent string  // codes of two capitals
}

// Land divides the world's land into cells of so many degrees, from north to south and from west to east.
func Land(step float64) []Cell {
	var cells []Cell
	for lat := northEnd - step/2; lat > southEnd; lat -= step {
		for lon := -180 + step/2; lon < 180; lon += step {
			for i := range outlines() {
				if o := &outlines()[i]; o.country != "AQ" && (o.holds(lon, lat) || o.holds(lon+360, lat) || o.holds(lon-360, lat)) {
					cells = append(cells, Cell{lat, lon, o.country, o.continent})
					break
				}
			}
		}
	}
	return cells
}

// Picture is what is drawn.
type Picture struct {
	Title  string
	Step   float64 // degrees of a cell's side
	Cells  []Cell
	Colour []int // of each cell, its number in Legend
	Legend []Entry
	Marks  []Mark
}

// Entry is a colour with what it stands for.
type Entry struct {
	Colour string // as CSS has it
	Text   string // empty for none in the legend
}

// Mark is a point with a name.
type Mark struct {
	LatDeg, LonDeg float64
	Name           string
	Square         bool // instead of round
}

// Sizes of the picture.
const (
	scale      = 4.0 // of a degree
	legendRow  = 18.0
	legendCols = 8
	margin     = 10.0
	titleSize  = 30.0
)

func x(lon float64) float64 { return margin + (lon+180)*scale }
func y(lat float64) float64 { return titleSize + (northEnd-lat)*scale }

// SVG draws the picture in plate carrée: degrees are squares.
func (p *Picture) SVG(w io.Writer) error {
	width := 360*scale + 2*margin
	mapHeight := (northEnd - southEnd) * scale
	shown := slices.DeleteFunc(slices.Clone(p.Legend), func(e Entry) bool { return e.Text == "" })
	height := titleSize + mapHeight + legendRow*math.Ceil(float64(len(shown))/legendCols) + 2*margin
	out := &strings.Builder{}
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(out, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", html.EscapeString(p.Title))
	fmt.Fprintf(out, `<text x="%.0f" y="20" font-size="15">%s</text>`+"\n", margin, html.EscapeString(p.Title))
	fmt.Fprintf(out, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" fill="#eef3f7"/>`+"\n", margin, titleSize, 360*scale, mapHeight)
	fmt.Fprintf(out, `<clipPath id="map"><rect x="%.0f" y="%.0f" width="%.0f" height="%.0f"/></clipPath>`+"\n", margin, titleSize, 360*scale, mapHeight)
	p.cells(out)
	coast(out)
	for _, m := range p.Marks {
		p.mark(out, m)
	}
	for i, e := range shown {
		left := margin + float64(i%legendCols)*(width-2*margin)/legendCols
		top := titleSize + mapHeight + margin + legendRow*math.Floor(float64(i)/legendCols)
		fmt.Fprintf(out, `<rect x="%.0f" y="%.0f" width="12" height="12" fill="%s"/><text x="%.0f" y="%.0f">%s</text>`+"\n",
			left, top, e.Colour, left+17, top+10, html.EscapeString(e.Text))
	}
	out.WriteString("</svg>\n")
	_, err := io.WriteString(w, out.String())
	return err
}

// cells draws runs of cells of one colour, all of one colour together.
func (p *Picture) cells(out *strings.Builder) {
	paths := make([]strings.Builder, len(p.Legend))
	side := p.Step * scale
	for i := 0; i < len(p.Cells); {
		from := p.Cells[i]
		n := 1
		for i+n < len(p.Cells) && p.Colour[i+n] == p.Colour[i] && p.Cells[i+n].LatDeg == from.LatDeg &&
			math.Abs(p.Cells[i+n].LonDeg-from.LonDeg-float64(n)*p.Step) < p.Step/4 {
			n++
		}
		fmt.Fprintf(&paths[p.Colour[i]], "M%g %gh%gv%gh%gz", tidy(x(from.LonDeg-p.Step/2)), tidy(y(from.LatDeg+p.Step/2)), tidy(side*float64(n)), tidy(side), tidy(-side*float64(n)))
		i += n
	}
	for i := range paths {
		if paths[i].Len() > 0 {
			fmt.Fprintf(out, `<path fill="%s" d="%s"/>`+"\n", p.Legend[i].Colour, paths[i].String())
		}
	}
}

// coast draws the borders of countries.
func coast(out *strings.Builder) {
	out.WriteString(`<path clip-path="url(#map)" fill="none" stroke="#fff" stroke-width="0.6" stroke-opacity="0.7" d="`)
	for _, o := range outlines() {
		if o.country == "AQ" {
			continue
		}
		for _, shift := range []float64{-360, 0, 360} {
			if o.west+shift >= 180 || o.east+shift <= -180 {
				continue
			}
			for i, c := range o.corners {
				fmt.Fprintf(out, "%s%g %g", map[bool]string{true: "M", false: "L"}[i == 0], tidy(x(c[0]+shift)), tidy(y(c[1])))
			}
			out.WriteString("z")
		}
	}
	out.WriteString("\"/>\n")
}

func (p *Picture) mark(out *strings.Builder, m Mark) {
	if m.Square {
		fmt.Fprintf(out, `<rect x="%g" y="%g" width="7" height="7" fill="#fff" stroke="#000"/>`, tidy(x(m.LonDeg)-3.5), tidy(y(m.LatDeg)-3.5))
	} else {
		fmt.Fprintf(out, `<circle cx="%g" cy="%g" r="3.5" fill="#fff" stroke="#000" stroke-width="1.5"/>`, tidy(x(m.LonDeg)), tidy(y(m.LatDeg)))
	}
	fmt.Fprintf(out, `<text x="%g" y="%g" stroke="#fff" stroke-width="3" stroke-opacity="0.8" paint-order="stroke">%s</text>`+"\n",
		tidy(x(m.LonDeg)+6), tidy(y(m.LatDeg)+4), html.EscapeString(m.Name))
}

// tidy rounds to a tenth.
func tidy(v float64) float64 { return math.Round(v*10) / 10 }
