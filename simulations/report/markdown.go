package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes a summary as it is shown beside a CI job (GitHub's job summaries, merge requests): what holds first, then the figures.
func (r *Report) Markdown(out io.Writer) error {
	w := &strings.Builder{}
	verdict := fmt.Sprintf("all %d assertions hold", len(r.Outcomes))
	switch n := r.Failed(); {
	case len(r.Outcomes) == 0:
		verdict = "nothing asserted"
	case n > 0:
		verdict = fmt.Sprintf("**%d of %d assertions do not hold**", n, len(r.Outcomes))
	}
	fmt.Fprintf(w, "### %s: %s\n\n%s\n\n", r.Scenario.Name, verdict, escape(r.Scenario.Summary))
	if len(r.Outcomes) > 0 {
		rows := [][]string{{"", "assertion", "measured"}}
		for _, o := range r.Outcomes {
			mark := "✅"
			if !o.Held {
				mark = "❌"
			}
			rows = append(rows, []string{mark, "`" + strings.ReplaceAll(o.Assertion.That, "`", "'") + "`", escape(o.Got)})
		}
		grid(w, rows)
	}
	columns := r.columns()
	head := []string{"figure"}
	for _, c := range columns {
		head = append(head, r.title(c))
	}
	fmt.Fprintf(w, "<details open><summary>Figures</summary>\n\n")
	grid(w, append([][]string{head}, r.cells(columns)...))
	fmt.Fprintf(w, "</details>\n")
	_, err := io.WriteString(out, w.String())
	return err
}

// escape keeps text from being read as Markdown or HTML in a cell.
func escape(text string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "*", "\\*", "\n", " ").Replace(text)
}

// grid writes a table.
func grid(w *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "| --- |%s\n", strings.Repeat(" ---: |", len(row)-1))
		}
	}
	fmt.Fprintln(w)
}
