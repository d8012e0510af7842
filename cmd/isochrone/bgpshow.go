package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dataplane/bgp"
)

// bgpPath is where a process tells what it announces.
const bgpPath = "/bgp"

func newBGPCommand() *cobra.Command {
	return newGroup("bgp", "Look at what a node announces by BGP", newBGPShowCommand())
}

func newBGPShowCommand() *cobra.Command {
	var (
		at     string
		asJSON bool
	)
	command := &cobra.Command{
		Use:   "show",
		Short: "Show what a PoP or DNS node of this machine announces, to whom, and why",
		Long: `Asks a process at its --http address: 127.0.0.1:9154 is that of a PoP, 127.0.0.1:9153 that of a DNS
node, unless it was started with another one.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			status, err := fetchBGP(command.Context(), at)
			if err != nil {
				return err
			}
			if asJSON {
				writeJSON(command.OutOrStdout(), status)
				return nil
			}
			return printBGP(command.OutOrStdout(), status, time.Now())
		},
	}
	command.Flags().StringVar(&at, "http", "127.0.0.1:9154", "`address` and port of the process")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func fetchBGP(ctx context.Context, at string) (*bgp.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+bgpPath, nil)
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("no process answers at %s (see --http): %w", at, err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("the process at %s announces nothing: it is no PoP, nor a DNS node with --bgp-config", at)
	}
	status := new(bgp.Status)
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(status); err != nil {
		return nil, fmt.Errorf("what answers at %s is no process of Isochrone: %w", at, err)
	}
	return status, nil
}

func printBGP(out io.Writer, s *bgp.Status, now time.Time) error {
	if len(s.Prefixes)+len(s.Sessions) == 0 {
		fmt.Fprintf(out, "%s announces nothing: nothing says to whom (bgp in the topology)\n", s.Node)
		return nil
	}
	err := columns(out, "PREFIX\tACTION\tFOR\tWHY", func(row func(...any)) {
		for _, p := range s.Prefixes {
			row(p.Prefix, p.Action, now.Sub(p.Since).Round(time.Second), p.Reason)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	return columns(out, "PEER\tADDRESS\tAS\tSTATE\tFOR\tTOLD\tREFUSED\tNOTE", func(row func(...any)) {
		for _, one := range s.Sessions {
			row(one.Peer, one.Address, one.ASN, one.State, now.Sub(one.Since).Round(time.Second), one.Advertised, one.Received, one.Reason)
		}
	})
}
