package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/dataplane/certs"
	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/dataplane/peer"
	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/internal/flagfile"
)

// alertRules is what is tested of deploy/prometheus/alerts.yaml.
type alertRules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func readAlerts(t *testing.T) alertRules {
	t.Helper()
	file, err := os.Open("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rules alertRules
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

// metricDescription finds names and labels in how client_golang prints a description.
var metricDescription = regexp.MustCompile(`fqName: "([^"]+)", .*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// knownMetrics are the labels of all metrics of all kinds of process, and of etcd, by name.
func knownMetrics(t *testing.T) map[string][]string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	n := newNode("dns", "a", stateDir(t.TempDir()), "", log, newContact(log, "etcd"))
	n.secrets = new(secrets)
	s, err := openSources(sourceFlags{}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	d := &dnsNode{node: n, sources: s, server: dns.New(dns.Config{Log: log}), start: &dnsFlags{cert: "x"}}
	control := prometheus.NewRegistry()
	controlplane.NewHandler(&controlplane.Service{Now: time.Now}, controlplane.HandlerConfig{Registry: control})
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		d.monitor().Describe(descriptions)
		control.Describe(descriptions)
		dataplane.New(dataplane.Config{Name: "sin1", Beside: peer.NewMetrics("sin1")}).Collector().Describe(descriptions)
		bgp.New(bgp.Config{}).Collector().Describe(descriptions)
		acme.New(acme.Config{}).Collector().Describe(descriptions)
		new(certs.Source).Collector().Describe(descriptions)
		newSpillMetrics(nil).Describe(descriptions)
		prometheus.DefaultRegisterer.(*prometheus.Registry).Describe(descriptions) // etcd's, which is linked in
	}()
	known := map[string][]string{"up": {"instance", "job"}}
	for description := range descriptions {
		found := metricDescription.FindStringSubmatch(description.String())
		named := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(found[2], "") + " " + found[3]
		labels := append([]string{"instance", "job"}, regexp.MustCompile(`[a-z_]+`).FindAllString(named, -1)...)
		known[found[1]] = labels
		for _, suffix := range []string{"_bucket", "_sum", "_count"} { // a description does not say whether it is a histogram's
			known[found[1]+suffix] = append(slices.Clone(labels), "le")
		}
	}
	return known
}

var (
	metricName  = regexp.MustCompile(`\b(up|(?:isochrone|etcd|process|go)_[a-z0-9_]+)\b(?:\{([^}]*)\})?`)
	matcher     = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping    = regexp.MustCompile(`\bby \(([^)]*)\)`)
	shownLabels = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}`)
)

// checkExpr checks that metrics and labels of an expression exist, and those labels that texts show of it.
func checkExpr(known map[string][]string, expr string, texts ...string) (faults []string) {
	var labels, kept []string
	names := metricName.FindAllStringSubmatch(expr, -1)
	if len(names) == 0 {
		faults = append(faults, "there is no metric in it")
	}
	for _, name := range names {
		has, ok := known[name[1]]
		if !ok {
			faults = append(faults, "there is no metric "+name[1])
		}
		labels = append(labels, has...)
		for _, m := range matcher.FindAllStringSubmatch(name[2], -1) {
			if ok && !slices.Contains(has, m[1]) {
				faults = append(faults, fmt.Sprintf("%s has no label %s", name[1], m[1]))
			}
		}
	}
	for _, by := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(by[1], ", ") {
			kept = append(kept, label)
			if !slices.Contains(labels, label) {
				faults = append(faults, "no metric has the label "+label)
			}
		}
	}
	if len(kept) == 0 {
		kept = labels
	}
	for _, text := range texts {
		for _, shown := range shownLabels.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(kept, shown[1]) {
				faults = append(faults, fmt.Sprintf("%q shows a label that the result does not have", text))
			}
		}
	}
	return faults
}

// TestAlertsNameWhatThereIs holds the alert rules to the metrics and to the runbooks.
func TestAlertsNameWhatThereIs(t *testing.T) {
	t.Parallel()
	known := knownMetrics(t)
	book, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, group := range readAlerts(t).Groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Alert)
			for _, fault := range checkExpr(known, rule.Expr, rule.Annotations["summary"]) {
				t.Errorf("%s: %s", rule.Alert, fault)
			}
			if severity := rule.Labels["severity"]; severity != "warning" && severity != "critical" {
				t.Errorf("%s has severity %q", rule.Alert, severity)
			}
			if want := "/docs/operations.md#" + strings.ToLower(rule.Alert); !strings.HasSuffix(rule.Annotations["runbook_url"], want) {
				t.Errorf("%s: the runbook is at %q, want …%s", rule.Alert, rule.Annotations["runbook_url"], want)
			}
			if rule.Annotations["summary"] == "" {
				t.Errorf("%s says nothing", rule.Alert)
			}
			if !strings.Contains(string(book), "\n### "+rule.Alert+"\n") {
				t.Errorf("docs/operations.md has no runbook ### %s", rule.Alert)
			}
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (Isochrone\w+)$`).FindAllStringSubmatch(string(book), -1) {
		if !slices.Contains(alerts, heading[1]) {
			t.Errorf("docs/operations.md has a runbook for %s, which is no alert", heading[1])
		}
	}
}

// TestPromtool has Prometheus check the rules, and try some of them, where it is installed (Debian: prometheus).
func TestPromtool(t *testing.T) {
	promtool := need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = "../../deploy/prometheus"
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboardNamesWhatThereIs holds the dashboard to the metrics, and to plugins that Grafana has.
func TestDashboardNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/grafana/isochrone.json")
	if err != nil {
		t.Fatal(err)
	}
	type query struct{ Expr, LegendFormat string }
	var dashboard struct {
		Panels []struct {
			Type, Title, Description string
			Datasource               struct{ UID string }
			Targets                  []query
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	known, queries := knownMetrics(t), 0
	check := func(where, expr string, texts ...string) {
		for _, fault := range checkExpr(known, expr, texts...) {
			t.Errorf("%s: %s: %s", where, expr, fault)
		}
	}
	for _, p := range dashboard.Panels {
		if !slices.Contains([]string{"row", "stat", "timeseries"}, p.Type) {
			t.Errorf("%s is of type %s", p.Title, p.Type)
		}
		if p.Type != "row" && (p.Datasource.UID != "${datasource}" || p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%s: want the variable datasource, a description and queries", p.Title)
		}
		for _, q := range p.Targets {
			queries++
			check(p.Title, q.Expr, q.LegendFormat)
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			check(v.Name, v.Definition)
		}
	}
	if queries < 30 {
		t.Errorf("only %d queries were found", queries)
	}
}

// checkCommand checks that the words of a command line name a command and flags that there are.
func checkCommand(words []string) error {
	root := newRootCommand()
	root.InitDefaultCompletionCmd()
	command, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if command.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		if err := command.ValidateArgs(rest[:1]); err != nil {
			return err
		}
	}
	command.InitDefaultHelpFlag()
	for _, word := range rest {
		name, ok := strings.CutPrefix(word, "--")
		if !ok || name == "" {
			continue
		}
		name, _, _ = strings.Cut(name, "=")
		if command.Flag(name) == nil && command.InheritedFlags().Lookup(name) == nil {
			return fmt.Errorf("%s has no flag --%s", command.CommandPath(), name)
		}
	}
	return nil
}

// TestUnitsNameWhatThereIs holds systemd's units to commands and flags.
func TestUnitsNameWhatThereIs(t *testing.T) {
	units, err := filepath.Glob("../../deploy/systemd/*.service")
	if err != nil || len(units) < 5 {
		t.Fatalf("got units %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		started := regexp.MustCompile(`(?m)^ExecStart=.*/usr/bin/isochrone ([^'\n]*)`).FindAllStringSubmatch(string(text), -1)
		if len(started) == 0 {
			t.Errorf("%s does not start isochrone", unit)
		}
		for _, line := range started {
			if err := checkCommand(strings.Fields(line[1])); err != nil {
				t.Errorf("%s: %v", unit, err)
			}
		}
	}
}

// TestExampleConfigurations reads the configurations in deploy/ with the flags of their commands.
func TestExampleConfigurations(t *testing.T) {
	for _, name := range []string{"control", "dns", "pop", "cluster", "agent"} {
		command, _, err := newRootCommand().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		if err := flagfile.Read(filepath.Join("../../deploy", name+".yaml"), command.Flags(), "config"); err != nil {
			t.Error(err)
		}
	}
}

// TestCommandsOfTheHandbook holds the command lines in the docs to commands and flags that there are.
func TestCommandsOfTheHandbook(t *testing.T) {
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, doc := range append(docs, "../../README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(string(text)) {
			lines++
			if err := checkCommand(line); err != nil {
				t.Errorf("%s: isochrone %s: %v", filepath.Base(doc), strings.Join(line, " "), err)
			}
		}
	}
	if lines < 120 {
		t.Errorf("only %d command lines were found", lines)
	}
}

// commandLines returns what runs isochrone in a doc: lines of blocks of code, and code inside of sentences.
func commandLines(doc string) (lines [][]string) {
	add := func(line string) {
		if words := wordsOf(line); len(words) > 0 {
			lines = append(lines, words)
		}
	}
	inside := regexp.MustCompile("`(isochrone\\s[a-z][^`]*)`")
	for i, block := range strings.Split(strings.ReplaceAll(doc, "\\\n", " "), "```") {
		for line := range strings.Lines(block) {
			if i%2 == 1 || strings.HasPrefix(line, "    ") {
				add(line)
			}
		}
		if i%2 == 0 {
			for _, code := range inside.FindAllStringSubmatch(block, -1) {
				add(strings.ReplaceAll(code[1], "\n", " "))
			}
		}
	}
	return lines
}

// wordsOf returns the words behind isochrone of a command line, up to what a shell takes for itself.
func wordsOf(line string) (words []string) {
	line, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "isochrone ")
	if !ok || strings.HasPrefix(line, "is ") { // which is what up says
		return nil
	}
	for _, word := range strings.Fields(line) {
		if strings.ContainsAny(word[:1], "#|<>&") {
			break
		}
		words = append(words, strings.Trim(word, ";[]"))
	}
	return words
}
