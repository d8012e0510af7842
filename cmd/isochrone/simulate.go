package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/simulations"
)

func newSimulateSingaporeFrankfurt() *cobra.Command {
	var (
		links  []string
		asJSON bool
	)
	command := &cobra.Command{
		Use:   "singapore-frankfurt",
		Short: "Compare posting to US-East from two cities with posting to a PoP nearby",
		Long: `Posts from Singapore and Frankfurt to US-East directly, and by a PoP nearby, with the real client,
dataplane, spool, forwarder and cluster over a simulated network in virtual time. Holds what is
measured against arithmetic, and against the claims of the course that the design comes from.
It ends with status 1 when a measured time is more than 1 ms from the analytic one, or a claim that
held before holds no more.`,
		Example: `  isochrone simulate singapore-frankfurt
  isochrone simulate singapore-frankfurt --rtt sin,iad=230 --json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			changed, err := parseRTTs(links)
			if err != nil {
				return err
			}
			report, err := simulations.SingaporeFrankfurt(changed)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(command.OutOrStdout(), report)
			} else {
				err = report.Print(command.OutOrStdout())
			}
			if err == nil && len(report.Failures) > 0 {
				err = errSilent
			}
			return err
		},
	}
	command.Flags().StringArrayVar(&links, "rtt", nil, "give a measured `link` another round-trip time in ms, such as sin,iad=230 (repeatable)")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

// longestRTT is more than any two places on earth need.
const longestRTT = 10 * time.Second

// parseRTTs reads links such as sin,iad=230.
func parseRTTs(texts []string) (simulations.RTTs, error) {
	rtts := simulations.RTTs{}
	for _, text := range texts {
		pair, value, ok := strings.Cut(text, "=")
		a, b, ok2 := strings.Cut(pair, ",")
		ms, err := strconv.ParseFloat(value, 64)
		if !ok || !ok2 || err != nil {
			return nil, fmt.Errorf("--rtt %q is not two sites and milliseconds, such as sin,iad=230", text)
		}
		if !(ms > 0 && ms <= float64(longestRTT/time.Millisecond)) {
			return nil, fmt.Errorf("--rtt %s: %s is not in 0..%d ms", text, value, longestRTT/time.Millisecond)
		}
		rtts[simulations.Link{simulations.Site(a), simulations.Site(b)}] = time.Duration(ms * float64(time.Millisecond))
	}
	return rtts, nil
}
