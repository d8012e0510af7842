package report

import (
	_ "embed"
	"html/template"
	"io"
	"strings"

	"github.com/isochrone/isochrone/simulations/scenario"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

// HTML writes one page that needs no other file, script or font.
func (r *Report) HTML(out io.Writer) error {
	type picture struct {
		Text string
		SVG  template.HTML
	}
	columns := r.columns()
	data := struct {
		Scenario *scenario.Scenario
		About    []string
		Short    bool
		Failed   int
		Outcomes []scenario.Outcome
		Columns  []string
		Rows     [][]string
		Claims   [][]string
		Pictures []picture
		Notes    []string
		Seeds    int
	}{Scenario: r.Scenario, Short: r.Short, Failed: r.Failed(), Outcomes: r.Outcomes, Rows: r.cells(columns), Claims: r.claims()}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(r.Scenario.About), "\n\n") {
		data.About = append(data.About, paragraph)
	}
	for _, c := range columns {
		data.Columns = append(data.Columns, r.title(c))
		data.Seeds = max(data.Seeds, len(c))
	}
	for _, p := range r.Pictures() {
		data.Pictures = append(data.Pictures, picture{p.Text, template.HTML(p.SVG)}) // drawn by this package, all text in it escaped
	}
	if len(r.Runs) > 0 {
		data.Notes = r.Runs[0].Notes
	}
	return page.Execute(out, data)
}
