package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Text writes a summary for a terminal of so many columns: what was asked, the figures, load over time, claims, and what holds.
func (r *Report) Text(out io.Writer, width int) error {
	w := &strings.Builder{}
	fmt.Fprintf(w, "%s: %s\n", r.Scenario.Name, r.Scenario.Summary)
	if r.Short {
		fmt.Fprintln(w, "(the short form)")
	}
	fmt.Fprintln(w)
	r.table(w)
	r.sparklines(w, width)
	if rows := r.claims(); len(rows) > 0 {
		fmt.Fprintln(w)
		align(w, append([][]string{{"CLAIM", "CLAIMED", "MEASURED", "SOURCE"}}, rows...))
	}
	if len(r.Outcomes) > 0 {
		fmt.Fprintln(w)
	}
	for _, o := range r.Outcomes {
		mark := "ok  "
		if !o.Held {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s  %s", mark, o.Assertion.That)
		if o.Got != "" {
			fmt.Fprintf(w, "   (%s)", o.Got)
		}
		fmt.Fprintln(w)
		if !o.Held && o.Assertion.Why != "" {
			fmt.Fprintf(w, "      %s\n", o.Assertion.Why)
		}
	}
	if n := r.Failed(); n > 0 {
		fmt.Fprintf(w, "\n%d of %d assertions do not hold.\n", n, len(r.Outcomes))
	} else if len(r.Outcomes) > 0 {
		fmt.Fprintf(w, "\nAll %d assertions hold.\n", len(r.Outcomes))
	}
	_, err := io.WriteString(out, w.String())
	return err
}

// table writes the figures, a column for each policy.
func (r *Report) table(w *strings.Builder) {
	columns := r.columns()
	head := []string{"FIGURE"}
	for _, c := range columns {
		head = append(head, strings.ToUpper(r.title(c)))
	}
	align(w, append([][]string{head}, r.cells(columns)...))
}

// cells are the rows of the table of figures: the name, and an estimate for each column.
func (r *Report) cells(columns []column) [][]string {
	var rows [][]string
	for _, name := range r.rows() {
		row := []string{name}
		for _, c := range columns {
			row = append(row, c.figure(name).String())
		}
		rows = append(rows, row)
	}
	return rows
}

// claims are figures of others with ours beside them, of the first policy.
func (r *Report) claims() [][]string {
	columns := r.columns()
	var rows [][]string
	for _, c := range r.Scenario.Claims {
		measured := ""
		for _, column := range columns {
			if measured = column.figure(c.Figure).String(); measured != "" {
				break
			}
		}
		rows = append(rows, []string{c.What, c.Value, cmp.Or(measured, "–"), c.Source})
	}
	return rows
}

// sparklines writes a line for each policy with its load over time.
func (r *Report) sparklines(w *strings.Builder, width int) {
	for _, name := range []string{"load", "rtt.mean"} {
		c := r.overTime(name)
		if len(c.curves) == 0 {
			continue
		}
		top, longest := 0.0, 0
		for _, line := range c.curves {
			longest = max(longest, utf8.RuneCountInString(line.name))
			for _, y := range line.y {
				top = max(top, y)
			}
		}
		fmt.Fprintf(w, "\n%s, of %s hours; highest %s\n", c.title, number(c.curves[0].x[len(c.curves[0].x)-1]), number(top))
		for _, line := range c.curves {
			fmt.Fprintf(w, "  %-*s %s\n", longest, line.name, Sparkline(line.y, top, min(96, max(10, width-longest-3))))
		}
	}
}

// Sparkline draws values as blocks, so many columns wide at most, each as high as the highest value of its part of them. Top is the
// value of a full block.
func Sparkline(values []float64, top float64, columns int) string {
	const blocks = "▁▂▃▄▅▆▇█"
	heights := []rune(blocks)
	columns = min(columns, len(values))
	out := make([]rune, columns)
	for i := range columns {
		highest := math.Inf(-1)
		for _, v := range values[i*len(values)/columns : (i+1)*len(values)/columns] {
			highest = max(highest, v)
		}
		n := 0
		if top > 0 && highest > 0 {
			n = min(int(highest/top*float64(len(heights))), len(heights)-1)
		}
		out[i] = heights[n]
	}
	return string(out)
}

// align writes rows with their columns below each other: the first to the left, numbers to the right.
func align(w *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line = cell + pad
			} else {
				line += "  " + pad + cell
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}
