package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

func newRTTCommand() *cobra.Command {
	var from, to, file string
	command := &cobra.Command{
		Use:   "rtt",
		Short: "Predict the round-trip time between two places",
		Long: `Predicts by the model of docs/rtt-model.md: cables between hubs, and land. A place is latitude,
longitude in degrees, and country. With --csv, predicts for each row of a file with the columns
` + strings.Join(csvIn, ",") + `.`,
		Example: `  isochrone rtt --from 1.29,103.85,SG --to 39.04,-77.49,US
  isochrone rtt --csv pairs.csv`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if file != "" {
				return predictFile(file, command.InOrStdin(), command.OutOrStdout())
			}
			if from == "" || to == "" {
				return errors.New("want --from and --to, or --csv")
			}
			a, err := parsePlace("--from", from)
			if err != nil {
				return err
			}
			b, err := parsePlace("--to", to)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "%.2f ms\n", rtt.Default().Milliseconds(a, b))
			return err
		},
	}
	command.Flags().StringVar(&from, "from", "", "`place`: LAT,LON,COUNTRY")
	command.Flags().StringVar(&to, "to", "", "`place`: LAT,LON,COUNTRY")
	command.Flags().StringVar(&file, "csv", "", "`file` of pairs; - reads standard input")
	command.MarkFlagsMutuallyExclusive("csv", "from")
	command.MarkFlagsMutuallyExclusive("csv", "to")
	return command
}

// parsePlace reads LAT,LON,COUNTRY.
func parsePlace(what, text string) (topology.Location, error) {
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return topology.Location{}, fmt.Errorf("%s: %q is not LAT,LON,COUNTRY such as 1.29,103.85,SG", what, text)
	}
	return placeOf(what, parts[0], parts[1], parts[2])
}

func placeOf(what, lat, lon, country string) (topology.Location, error) {
	l := topology.Location{Country: strings.ToUpper(strings.TrimSpace(country))}
	var err error
	if l.LatDeg, err = degrees(lat, 90); err != nil {
		return l, fmt.Errorf("%s: latitude %w", what, err)
	}
	if l.LonDeg, err = degrees(lon, 180); err != nil {
		return l, fmt.Errorf("%s: longitude %w", what, err)
	}
	if len(l.Country) != 2 || strings.Trim(l.Country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return l, fmt.Errorf("%s: country %q is not two letters such as SG", what, country)
	}
	return l, nil
}

func degrees(text string, limit float64) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(v) || v < -limit || v > limit {
		return 0, fmt.Errorf("%q is not a number of degrees in -%v..%v", text, limit, limit)
	}
	return v, nil
}

// The columns of --csv and of its output.
var (
	csvIn  = []string{"set", "region_a", "region_b", "lat_a_deg", "lon_a_deg", "country_a", "lat_b_deg", "lon_b_deg", "country_b"}
	csvOut = []string{"set", "region_a", "region_b", "rtt_ms"}
)

func predictFile(file string, stdin io.Reader, out io.Writer) error {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("--csv: %w", err)
		}
		defer f.Close()
		in = f
	}
	return predictCSV(in, out)
}

func predictCSV(in io.Reader, out io.Writer) error {
	reader, writer := csv.NewReader(in), csv.NewWriter(out)
	head, err := reader.Read()
	if err != nil {
		return fmt.Errorf("--csv: read the header: %w", err)
	}
	var columns [9]int
	for i, name := range csvIn {
		if columns[i] = slices.Index(head, name); columns[i] < 0 {
			return fmt.Errorf("--csv: column %s is missing; want %s", name, strings.Join(csvIn, ","))
		}
	}
	if err := writer.Write(csvOut); err != nil {
		return err
	}
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			writer.Flush()
			return writer.Error()
		}
		if err != nil {
			return fmt.Errorf("--csv: %w", err)
		}
		line, _ := reader.FieldPos(0)
		field := func(i int) string { return row[columns[i]] }
		a, err := placeOf(fmt.Sprintf("--csv: line %d, a", line), field(3), field(4), field(5))
		if err != nil {
			return err
		}
		b, err := placeOf(fmt.Sprintf("--csv: line %d, b", line), field(6), field(7), field(8))
		if err != nil {
			return err
		}
		predicted := strconv.FormatFloat(rtt.Default().Milliseconds(a, b), 'f', 4, 64)
		if err := writer.Write([]string{field(0), field(1), field(2), predicted}); err != nil {
			return err
		}
	}
}
