package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// checkOutput refuses a form that is none.
func (t *target) checkOutput() error {
	switch t.output {
	case "table", "json", "yaml":
		return nil
	}
	return fmt.Errorf("--output %q is not one of table, json, yaml", t.output)
}

// show prints a value as --output says; table prints it for a person.
func (t *target) show(command *cobra.Command, value any, table func(io.Writer) error) error {
	out := command.OutOrStdout()
	switch t.output {
	case "json":
		return writeJSON(out, value)
	case "yaml":
		return writeYAML(out, value)
	}
	return table(out)
}

// columns prints rows below a headline.
func columns(out io.Writer, headline string, rows func(row func(cells ...any))) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, headline)
	rows(func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			fmt.Fprint(table, cell)
		}
		fmt.Fprintln(table)
	})
	return table.Flush()
}

// writeJSON prints a value as a person reads JSON.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// writeYAML prints what writeJSON prints, with the same names in the same order, as YAML.
func writeYAML(w io.Writer, value any) error {
	var text bytes.Buffer
	if err := writeJSON(&text, value); err != nil {
		return err
	}
	var node yaml.Node // JSON is YAML
	if err := yaml.Unmarshal(text.Bytes(), &node); err != nil {
		return err
	}
	plainStyle(&node)
	return printYAML(w, &node)
}

// plainStyle makes nodes look as people write YAML.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plainStyle(child)
	}
}

func printYAML(w io.Writer, value any) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	return encoder.Close()
}
