package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// palette has colours that differ for those who see few colours, too (Okabe and Ito).
var palette = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"}

// curve is one line of a chart. X grows.
type curve struct {
	name string
	x, y []float64
	step bool // the value holds until the next
}

// chart is a diagram of lines.
type chart struct {
	title, xLabel, yLabel string
	curves                []curve
	logX                  bool
	top                   float64 // of the y axis; 0 is the highest value
	limit                 float64 // a line across; 0 is none
	marks                 []mark  // vertical lines
}

// mark is a moment in a chart over time.
type mark struct {
	x    float64
	text string
}

// Sizes of a chart, in its own units.
const (
	chartWidth  = 720.0
	chartHeight = 300.0
	chartLeft   = 56.0
	chartRight  = 12.0
	chartTop    = 32.0
	chartBottom = 64.0
)

// svg draws the chart.
func (c *chart) svg() string {
	low, high, top := c.bounds()
	px := func(x float64) float64 {
		if c.logX {
			x, low, high := math.Log(max(x, low)), math.Log(low), math.Log(high)
			return chartLeft + (x-low)/(high-low)*(chartWidth-chartLeft-chartRight)
		}
		return chartLeft + (x-low)/(high-low)*(chartWidth-chartLeft-chartRight)
	}
	py := func(y float64) float64 {
		return chartHeight - chartBottom - min(y/top, 1.02)*(chartHeight-chartTop-chartBottom)
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="11" role="img">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(out, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/><text x="%g" y="18" font-size="14">%s</text>`+"\n",
		html.EscapeString(c.title), chartLeft, html.EscapeString(c.title))
	for _, y := range ticks(0, top, 5) {
		fmt.Fprintf(out, `<path d="M%g %.1fH%g" stroke="#ddd"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n",
			chartLeft, py(y), chartWidth-chartRight, chartLeft-5, py(y)+4, number(y))
	}
	xTicks := ticks(low, high, 8)
	if c.logX {
		xTicks = logTicks(low, high)
	}
	for _, x := range xTicks {
		fmt.Fprintf(out, `<path d="M%.1f %gv4" stroke="#555"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n",
			px(x), chartHeight-chartBottom, px(x), chartHeight-chartBottom+16, number(x))
	}
	fmt.Fprintf(out, `<path d="M%g %gH%g" stroke="#555"/><text x="%g" y="%g" text-anchor="end">%s</text><text x="4" y="%g">%s</text>`+"\n",
		chartLeft, chartHeight-chartBottom, chartWidth-chartRight, chartWidth-chartRight, chartHeight-chartBottom+32, html.EscapeString(c.xLabel), chartTop-4, html.EscapeString(c.yLabel))
	for _, m := range c.marks {
		fmt.Fprintf(out, `<path d="M%.1f %gV%g" stroke="#999" stroke-dasharray="2 3"><title>%s</title></path>`+"\n", px(m.x), chartTop, chartHeight-chartBottom, html.EscapeString(m.text))
	}
	if c.limit > 0 {
		fmt.Fprintf(out, `<path d="M%g %.1fH%g" stroke="#c00" stroke-dasharray="6 3"/>`+"\n", chartLeft, py(c.limit), chartWidth-chartRight)
	}
	for i, line := range c.curves {
		fmt.Fprintf(out, `<path fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round" d="%s"/>`+"\n", colour(i), line.path(px, py))
	}
	c.legend(out)
	out.WriteString("</svg>\n")
	return out.String()
}

// bounds returns the ends of the axes.
func (c *chart) bounds() (low, high, top float64) {
	low, high, top = math.Inf(1), math.Inf(-1), c.top
	for _, line := range c.curves {
		for i, x := range line.x {
			low, high = min(low, x), max(high, x)
			if c.top == 0 {
				top = max(top, line.y[i], c.limit)
			}
		}
	}
	if c.logX {
		low = max(low, 0.5)
	}
	if !(high > low) {
		low, high = 0.5, 1
	}
	if top == 0 {
		top = 1
	}
	return low, high, top
}

// path draws a line. Of points that fall on each other only the first is written.
func (l curve) path(px, py func(float64) float64) string {
	out := &strings.Builder{}
	lastX, lastY := math.Inf(-1), 0.0
	for i, x := range l.x {
		x, y := tenth(px(x)), tenth(py(l.y[i]))
		switch {
		case i == 0:
			fmt.Fprintf(out, "M%g %g", x, y)
		case x == lastX && y == lastY:
			continue
		case l.step:
			fmt.Fprintf(out, "H%gV%g", x, y)
		default:
			fmt.Fprintf(out, "L%g %g", x, y)
		}
		lastX, lastY = x, y
	}
	return out.String()
}

// legend names the lines below the chart.
func (c *chart) legend(out *strings.Builder) {
	x := chartLeft
	for i, line := range c.curves {
		fmt.Fprintf(out, `<path d="M%.0f %gh16" stroke="%s" stroke-width="3"/><text x="%.0f" y="%g">%s</text>`+"\n",
			x, chartHeight-14, colour(i), x+20, chartHeight-10, html.EscapeString(line.name))
		x += 34 + 6.2*float64(len([]rune(line.name)))
	}
}

func colour(i int) string { return palette[i%len(palette)] }

func tenth(x float64) float64 { return math.Round(x*10) / 10 }

// ticks returns about n round numbers from low to high.
func ticks(low, high float64, n int) []float64 {
	raw := (high - low) / float64(n)
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if unit*m >= raw*0.999 {
			unit *= m
			break
		}
	}
	var all []float64
	for i := math.Ceil(low / unit); i*unit <= high*1.0001; i++ {
		all = append(all, i*unit)
	}
	return all
}

// logTicks returns 1, 2, 5, 10, ... from low to high.
func logTicks(low, high float64) []float64 {
	var all []float64
	for unit := math.Pow(10, math.Floor(math.Log10(low))); unit <= high; unit *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if x := unit * m; x >= low && x <= high {
				all = append(all, x)
			}
		}
	}
	return all
}
