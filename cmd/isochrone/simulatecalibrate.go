package main

import (
	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/simulations/calibrate"
)

func newSimulateCalibrate() *cobra.Command {
	var tried, asJSON bool
	command := &cobra.Command{
		Use:   "calibrate",
		Short: "Fit the model of round-trip times to measurements, and say how good it is",
		Long: `Fits the model of round-trip times, and two simpler ones, to 780 measured pairs of 40 cloud regions, and
cross-validates them by regions: how far off is what a model says of places that it has never seen?
The table is that of docs/rtt-model.md.`,
		Example: `  isochrone simulate calibrate
  isochrone simulate calibrate --tried --json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			report, err := calibrate.Run(tried)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(command.OutOrStdout(), report)
			}
			return report.Print(command.OutOrStdout())
		},
	}
	command.Flags().BoolVar(&tried, "tried", false, "compare with models that were tried and not taken, which takes longer")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}
