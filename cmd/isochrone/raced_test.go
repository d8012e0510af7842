package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Under the race detector the program takes four times the processor time, and most tests here ask what it does, not how its
// goroutines get along: that is what the tests of the rooms do, in their own processes. So only these tests run it with the detector,
// and only as these commands, unless all are told to: between them they run each kind of process, started, under load, told to read
// again, upgraded and ended.
var (
	raced = map[string]string{
		"TestAgent":                 "agent",
		"TestControlPlanes":         "control",
		"TestDNSNodeReload":         "dns",
		"TestDNSNodeUpgrade":        "dns", // two processes with the same sockets
		"TestDrainAndEdits":         "up",
		"TestHostileClients":        "up pop", // clients that misbehave, many at a time
		"TestKeysAndQuota":          "up",     // quota, used up at several PoPs
		"TestNothingAcceptedIsLost": "up cluster",
		"TestPoPJoins":              "control pop",
		"TestPoPUpgrades":           "pop", // two processes with the same sockets
		"TestRelayedPoP":            "pop",
		"TestSecondaries":           "dns", // zone transfers
		"TestTransports":            "dns",
	}
	allRaced = flag.Bool("raced", false, "with -race: run the program with the race detector in all tests, not only in those of a list")
)

// A built program is there once it is asked for.
type built func() (string, error)

func buildOnce(folder, name string, flags ...string) built {
	return sync.OnceValues(func() (string, error) {
		at := filepath.Join(folder, name, "isochrone")
		args := append([]string{"build", "-o", at}, flags...)
		if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the program: %w\n%s", err, out)
		}
		return at, nil
	})
}

// program is the program under test, as a user would build it; racedProgram has the race detector when the test has it.
var (
	program      string
	racedProgram built
)

func TestMain(m *testing.M) {
	if os.Getenv(attackVariable) != "" {
		attackAlone()
		return
	}
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		parallel.Value.Set(fmt.Sprint(waiting)) // they mostly wait
	}
	os.Exit(run(m))
}

// waiting is how many tests may run at a time.
const waiting = 4

func run(m *testing.M) (status int) {
	folder, err := os.MkdirTemp("", "isochrone-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	plain := buildOnce(folder, "plain")
	racedProgram = plain
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		racedProgram = buildOnce(folder, "raced", "-race")
	}
	if program, err = plain(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// programOf returns the program that a test starts a process of, which is to run a command. Commands that do one thing and end are
// of the plain one.
func programOf(t testing.TB, command string) string {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	if !*allRaced && !slices.Contains(strings.Fields(raced[name]), command) {
		return program
	}
	at, err := racedProgram()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// reportRaces fails a test for data races in a process that it started, whatever became of the process.
func reportRaces(t testing.TB, printed string) {
	if _, race, found := strings.Cut(printed, "WARNING: DATA RACE"); found {
		t.Errorf("a data race:%s", race)
	}
}

// TestRacedIsUpToDate looks for the tests of the list.
func TestRacedIsUpToDate(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for name := range raced {
		if !strings.Contains(all.String(), "\nfunc "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
}
