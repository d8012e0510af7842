package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/isochrone/isochrone/simulations"
	"github.com/isochrone/isochrone/simulations/report"
	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/scenarios"
)

// simulateFlags are those of a run of scenarios.
type simulateFlags struct {
	seeds                         []uint
	policies                      []string
	short, asJSON                 bool
	html, csv, markdown, pictures string
}

func newSimulateCommand() *cobra.Command {
	var f simulateFlags
	command := newGroup("simulate [FILE|NAME ...]", "Run simulated worlds on the real code, in virtual time",
		newSimulateSingaporeFrankfurt(), newSimulateCalibrate(), newSimulateList(), newSimulateSchema())
	command.Long = `Runs scenarios: those that are ready, by name, or files of your own. A scenario says what the world is, which
policies steer it, what happens, what is measured, and what must hold. It ends with status 1 when something
does not hold, so that a CI job can say whether an edit of your topology is safe.

docs/simulations.md describes the language and the ready scenarios.`
	command.Example = `  isochrone simulate list
  isochrone simulate world40 --short
  isochrone simulate cascade --html report.html --compare ours,nearest
  isochrone simulate my-world.yaml --seed 7 --markdown "$GITHUB_STEP_SUMMARY"`
	command.Args = cobra.ArbitraryArgs
	command.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return scenarios.Names(), cobra.ShellCompDirectiveDefault
	}
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return command.Help()
		}
		return f.run(command, args)
	}
	flags := command.Flags()
	flags.UintSliceVar(&f.seeds, "seed", nil, "`seeds` in place of the scenario's, with commas between them")
	flags.StringSliceVar(&f.policies, "compare", nil, "`policies` in place of the scenario's: "+strings.Join(policyNames(), ", ")+"; assertions about others are left out")
	flags.BoolVar(&f.short, "short", false, "the short form, as CI runs it")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.StringVar(&f.html, "html", "", "write a page to a `file`, which needs no other")
	flags.StringVar(&f.csv, "csv", "", "write all figures to a `file`")
	flags.StringVar(&f.markdown, "markdown", "", "append a summary to a `file`, such as that of a CI job")
	flags.StringVar(&f.pictures, "pictures", "", "write drawings (SVG) into a `folder`")
	return command
}

func policyNames() []string {
	var names []string
	for _, p := range scenario.PolicyNames {
		names = append(names, string(p))
	}
	return names
}

// run runs scenarios one after the other, and fails at the end when one of them does not hold.
func (f *simulateFlags) run(command *cobra.Command, names []string) error {
	var options simulations.Options
	for _, seed := range f.seeds {
		options.Seeds = append(options.Seeds, uint64(seed))
	}
	for _, policy := range f.policies {
		if err := scenario.KnownPolicy(policy); err != nil {
			return fmt.Errorf("--compare: %w", err)
		}
		options.Policies = append(options.Policies, scenario.PolicyName(policy))
	}
	options.Short = f.short
	if len(names) > 1 && (f.html != "" || f.csv != "") {
		return fmt.Errorf("--html and --csv are files of one scenario: %d were given", len(names))
	}
	var loaded []*scenario.Scenario // before the first one runs, so that a typo is told at once
	for _, name := range names {
		sc, err := loadScenario(name)
		if err != nil {
			return err
		}
		loaded = append(loaded, sc)
	}
	failed := false
	for i, sc := range loaded {
		if i > 0 && !f.asJSON {
			fmt.Fprintln(command.OutOrStdout())
		}
		r, err := simulated(command, sc, options)
		if err != nil {
			return err
		}
		if err := f.write(command, r); err != nil {
			return err
		}
		failed = failed || r.Failed() > 0
	}
	if failed {
		return errSilent
	}
	return nil
}

// loadScenario reads a ready scenario, or a file: what has a slash or an end is one.
func loadScenario(name string) (*scenario.Scenario, error) {
	if strings.ContainsAny(name, `/\.`) {
		return scenario.Load(name, os.ReadFile)
	}
	return scenarios.Load(name)
}

func simulated(command *cobra.Command, sc *scenario.Scenario, options simulations.Options) (*report.Report, error) {
	const parts = 1000
	bar := startProgress(command.ErrOrStderr(), sc.Name, parts, func(int64) string { return "the runs" })
	defer bar.end()
	options.Progress = func(done float64) { bar.at(int64(done*parts), parts) }
	return simulations.Simulate(cmp.Or(command.Context(), context.Background()), sc, options)
}

func (f *simulateFlags) write(command *cobra.Command, r *report.Report) error {
	out := command.OutOrStdout()
	if f.asJSON {
		if err := r.JSON(out); err != nil {
			return err
		}
	} else if err := r.Text(out, columnsOf(out)); err != nil {
		return err
	}
	if f.html != "" {
		if err := writeFile(f.html, r.HTML); err != nil {
			return err
		}
	}
	if f.csv != "" {
		if err := writeFile(f.csv, r.CSV); err != nil {
			return err
		}
	}
	if f.markdown != "" {
		if err := appendFile(f.markdown, r.Markdown); err != nil {
			return err
		}
	}
	if f.pictures == "" {
		return nil
	}
	if err := os.MkdirAll(f.pictures, 0o777); err != nil {
		return err
	}
	for _, p := range r.Pictures() {
		path := filepath.Join(f.pictures, r.Scenario.Name+"-"+p.Name+".svg")
		if err := os.WriteFile(path, []byte(p.SVG), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// columnsOf is how wide a terminal is, or 100.
func columnsOf(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			return width
		}
	}
	return 100
}

func appendFile(path string, write func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	if err := write(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func newSimulateList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the scenarios that are ready", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			out := command.OutOrStdout()
			return columns(out, "SCENARIO\tSCALES\tWHAT IT SHOWS", func(row func(...any)) {
				row("singapore-frankfurt", "packet", "Posts to US-East directly, or to a PoP nearby, against the claims of a course.")
				for _, name := range scenarios.Names() {
					sc, err := scenarios.Load(name)
					if err != nil {
						panic(err) // a test reads them all
					}
					var scales []string
					for _, scale := range sc.Scales {
						scales = append(scales, string(scale))
					}
					row(name, strings.Join(scales, ","), sc.Summary)
				}
			})
		},
	}
}

func newSimulateSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of scenarios, for editors", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := command.OutOrStdout().Write(append(scenario.JSONSchema(), '\n'))
			return err
		},
	}
}
