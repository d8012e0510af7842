package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/topology"
)

func newTopologySchema() *cobra.Command {
	var objects string
	command := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a topology, for editors",
		Long: `Prints the JSON Schema (2020-12) of a document with a topology, or of one object as it is stored.
An editor with yaml-language-server tells what a key means, completes it and marks what is wrong, if the
first line of the document names the file:

  # yaml-language-server: $schema=topology.schema.json`,
		Example: `  isochrone topology schema > topology.schema.json
  isochrone topology schema --object pops`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			text, err := topology.JSONSchema(), error(nil)
			if objects != "" {
				text, err = topology.JSONSchemaOf(objects)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "%s\n", bytes.TrimSpace(text))
			return err
		},
	}
	command.Flags().StringVar(&objects, "object", "", "of one `kind` of object instead: pops, clusters, services, zones, overrides or keys")
	return command
}
