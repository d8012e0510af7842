package report

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/isochrone/isochrone/simulations/scenario"
)

// JSON writes all runs and outcomes. Equal runs are equal bytes.
func (r *Report) JSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Scenario string             `json:"scenario"`
		Short    bool               `json:"short,omitempty"`
		Runs     []*scenario.Run    `json:"runs"`
		Outcomes []scenario.Outcome `json:"assertions"`
		Failed   int                `json:"failed"`
	}{r.Scenario.Name, r.Short, r.Runs, r.Outcomes, r.Failed()})
}

// CSV writes a row for each figure of each run: scenario, variant, scale, policy, seed, figure, value, unit.
func (r *Report) CSV(out io.Writer) error {
	w := csv.NewWriter(out)
	rows := [][]string{{"scenario", "variant", "scale", "policy", "seed", "figure", "value", "unit"}}
	for _, run := range r.Runs {
		for _, name := range slices.Sorted(maps.Keys(run.Figures)) {
			f := run.Figures[name]
			rows = append(rows, []string{r.Scenario.Name, run.Variant, string(run.Scale), string(run.Policy), strconv.FormatUint(run.Seed, 10), name,
				strconv.FormatFloat(f.Value, 'g', -1, 64), f.Unit})
		}
	}
	return w.WriteAll(rows)
}
