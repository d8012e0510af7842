package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
)

func newReceiptShowCommand() *cobra.Command {
	var (
		f       intakeAccess
		t       target // for --output
		service string
	)
	command := &cobra.Command{
		Use:   "show ID",
		Short: "Ask the nearest PoP what has become of a request",
		Long: `Asks the nearest PoP by GET /api/v1/receipts/ID what has become of a request: accepted, delivered to a cluster,
or a dead letter. It is told to the API key that the request was posted with; that key stands in --key-file, or in
the environment variable ISOCHRONE_API_KEY.`,
		Example: `  isochrone receipt show sin1.0f3a --service intake.example.net --key-file /etc/isochrone/api.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := t.checkOutput(); err != nil {
				return err
			}
			key, err := f.key()
			if err != nil {
				return err
			}
			name, resolver, client, err := f.open(service)
			if err != nil {
				return err
			}
			defer client.Close()
			endpoints, err := resolver.Resolve(command.Context(), name)
			if err != nil {
				return err
			}
			answer, err := client.Post(command.Context(), endpoints, &intakeclient.Request{
				Method: http.MethodGet, Service: name, Path: dataplane.ReceiptsPath + args[0], Header: http.Header{"X-Api-Key": {key}},
			})
			if err != nil {
				return err
			}
			outcome, err := readOutcome(answer)
			if err != nil {
				return err
			}
			return t.show(command, outcome, func(out io.Writer) error { return printOutcome(out, outcome) })
		},
	}
	f.register(command.Flags())
	command.Flags().StringVar(&f.keyFile, "key-file", "", "`file` with the API key, of mode 0600 (default: as up.json in --dir says)")
	command.Flags().StringVar(&service, "service", "", "`host` name of the service (default: the example's, of a running \"isochrone up\" in --dir)")
	command.Flags().StringVarP(&t.output, "output", "o", "table", "`form` of what is printed: table, json or yaml")
	return command
}

func readOutcome(answer *intakeclient.Answer) (*dataplane.Outcome, error) {
	if answer.Status != http.StatusOK {
		var told problem.Document
		if err := json.Unmarshal(answer.Body, &told); err != nil {
			return nil, fmt.Errorf("the answer is %d, and no problem document", answer.Status)
		}
		return nil, fmt.Errorf("PoP %s answers %d: %s", answer.Header.Get("X-Isochrone-Pop"), answer.Status, told.Detail)
	}
	outcome := new(dataplane.Outcome)
	if err := json.Unmarshal(answer.Body, outcome); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return outcome, nil
}

func printOutcome(out io.Writer, o *dataplane.Outcome) error {
	return columns(out, "FIELD\tVALUE", func(row func(...any)) {
		row("id", o.ID)
		row("status", o.Status)
		row("service", o.Service)
		row("sha256", o.SHA256)
		row("accepted", o.Accepted.Local().Format(time.RFC3339Nano))
		if o.Time != nil {
			row("time", o.Time.Local().Format(time.RFC3339Nano))
		}
		if o.Cluster != "" {
			row("cluster", o.Cluster)
		}
		if o.Reason != "" {
			row("reason", o.Reason)
		}
	})
}
