package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
	"github.com/isochrone/isochrone/internal/statedir"
)

// patience is how long a test waits for what should take a moment.
const patience = time.Minute

// eventually waits until check returns no error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(patience)
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-retry.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// isochrone runs a command to its end.
func isochrone(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errors bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Stdout, command.Stderr = &out, &errors
	err = command.Run()
	return out.String(), errors.String(), err
}

// mustRun runs a command that should succeed and returns its output.
func mustRun(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, err := isochrone(t, args...)
	if err != nil {
		t.Fatalf("isochrone %s: %v: %s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// mustFail runs a command that should fail and returns what it says.
func mustFail(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := isochrone(t, args...)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("isochrone %s: want status 1, got %v: %s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stderr
}

// process is a command that goes on running.
type process struct {
	command *exec.Cmd
	output  *output
	ended   chan struct{} // closed when it has
	err     error         // then
}

// start starts a command, waits until it prints a line that begins with ready, and ends it after the test.
func start(t testing.TB, ready string, args ...string) *process {
	t.Helper()
	return startCommand(t, ready, exec.Command(programOf(t, args[0]), args...))
}

// startCommand is start for a command that is made already.
func startCommand(t testing.TB, ready string, command *exec.Cmd) *process {
	t.Helper()
	p, args := &process{command: command, ended: make(chan struct{}), output: &output{}}, command.Args[1:]
	p.command.Stderr = p.output
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	isReady := make(chan struct{})
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(stdout)
		for seen := false; lines.Scan(); {
			fmt.Fprintln(p.output, lines.Text())
			if !seen && strings.HasPrefix(lines.Text(), ready) {
				seen = true
				close(isReady)
			}
		}
		p.err = p.command.Wait()
	}()
	t.Cleanup(func() {
		p.command.Process.Kill()
		<-p.ended
		reportRaces(t, p.output.String())
		if t.Failed() {
			t.Logf("isochrone %s printed:\n%s", strings.Join(args, " "), p.output)
		}
	})
	select {
	case <-isReady:
	case <-p.ended:
		t.Fatalf("isochrone %s ended: %v: %s", strings.Join(args, " "), p.err, p.output)
	case <-time.After(patience):
		t.Fatalf("isochrone %s is not ready: %s", strings.Join(args, " "), p.output)
	}
	return p
}

// interrupt is Ctrl-C.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.command.Process.Signal(syscall.SIGQUIT)
		<-p.ended
		t.Fatalf("it does not end: %s", p.output)
	}
	if p.err != nil {
		t.Fatalf("ended with %v: %s", p.err, p.output)
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.command.Process.Kill()
	<-p.ended
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(data)
}

// String returns all that was printed.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is a running "isochrone up".
type running struct {
	*process
	statedir.Up
	dir string
}

// startUp starts "isochrone up" on free ports, in a folder of the test or the one of an earlier start.
func startUp(t *testing.T, dir string, flags ...string) *running {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	args := []string{"up", "--dir", dir, "--dns", "127.0.0.1:0", "--api", "127.0.0.1:0", "--etcd", "127.0.0.1:0"}
	if _, err := os.Stat(filepath.Join(dir, "etcd")); err != nil {
		args = append(args, "--pop-port", fmt.Sprint(sockettest.Free(t).Port())) // later starts find it in the topology
	}
	r := &running{process: start(t, "isochrone is up", append(args, flags...)...), dir: dir}
	up, err := statedir.ReadUp(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Up = *up
	return r
}

// ask asks the DNS server of a running world for the service's addresses, as seen by a client subnet.
func (r *running) ask(subnet string) ([]string, error) {
	question := new(mdns.Msg).SetQuestion("intake.isochrone.test.", mdns.TypeA)
	option := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}}
	option.SetUDPSize(1232)
	prefix := netip.MustParsePrefix(subnet)
	ecs := &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()), Address: prefix.Addr().AsSlice()}
	if prefix.Addr().Is6() {
		ecs.Family = 2
	}
	option.Option = append(option.Option, ecs)
	question.Extra = append(question.Extra, option)
	answer, err := mdns.Exchange(question, r.DNS)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != mdns.RcodeSuccess {
		return nil, errors.New(mdns.RcodeToString[answer.Rcode])
	}
	var addrs []string
	for _, record := range answer.Answer {
		if a, ok := record.(*mdns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	return addrs, nil
}

// pop returns the PoP that a client subnet is sent to.
func (r *running) pop(subnet string) (string, error) {
	addrs, err := r.ask(subnet)
	if err != nil {
		return "", err
	}
	for name, at := range r.PoPs {
		if addr := netip.MustParseAddrPort(at).Addr().String(); len(addrs) == 1 && addrs[0] == addr {
			return name, nil
		}
	}
	return "", fmt.Errorf("the answer is %v, PoPs are at %v", addrs, r.PoPs)
}

// leads waits until a place's clients are sent to a PoP.
func (r *running) leads(t *testing.T, place, pop string) {
	t.Helper()
	eventually(t, place+" to "+pop, func() error {
		got, err := r.pop(sendPlaces[place])
		if err == nil && got != pop {
			err = fmt.Errorf("it is sent to %s", got)
		}
		return err
	})
}

// run runs a command on a running world.
func (r *running) run(t *testing.T, args ...string) string {
	t.Helper()
	return mustRun(t, append(args, "--dir", r.dir)...)
}

// need returns the path of a tool. A test whose tool is missing fails in CI, and is skipped elsewhere.
func need(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil { // where servers are, and not everybody looks
		if path, sbin := exec.LookPath("/usr/sbin/" + tool); sbin == nil {
			return path
		}
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("%v: install it to run this test", err)
	}
	return path
}

// decode reads JSON.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var value T
	decoder := json.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&value); err != nil && err != io.EOF {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}
