package bgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/topology"
)

// asSpeaker has the test binary be a speaker instead: it is told what to do on standard input, and tells its status on standard output.
const asSpeaker = "ISOCHRONE_TEST_BGP_SPEAKER"

func TestMain(m *testing.M) {
	if name := os.Getenv(asSpeaker); name != "" {
		if err := speakerProcess(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// orders are what a speaker of a test is told: all that it knows of the world.
type orders struct {
	File     string // as topology.ParseBGPFile reads it
	Own      []netip.Addr
	Password string
	Service  Check
	Verdict  Check
	Operator Wish
	Why      string
	Others   []Other // of each prefix
	Known    bool
}

func (o *orders) plan() Plan {
	f, faults := topology.ParseBGPFile([]byte(o.File), o.Own)
	if len(faults) > 0 {
		panic(fmt.Sprint(faults))
	}
	id, _ := f.RouterIDOf(o.Own)
	return Plan{BGP: &f.BGP, RouterID: id, Prefixes: f.Announces}
}

func (o *orders) inputs(prefixes []netip.Prefix) Inputs {
	in := Inputs{Service: o.Service, Verdict: o.Verdict, Operator: o.Operator, Why: o.Why, Known: o.Known, Others: map[netip.Prefix][]Other{}}
	for _, p := range prefixes {
		in.Others[p] = o.Others
	}
	return in
}

func speakerProcess(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var (
		mu   sync.Mutex
		now  orders
		plan Plan
	)
	take := func(line []byte) {
		next := orders{}
		if err := json.Unmarshal(line, &next); err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		now, plan = next, next.plan()
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	take(lines.Bytes())
	go func() {
		for lines.Scan() {
			take(lines.Bytes())
		}
	}()
	s := New(Config{
		Node: name, Interval: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Plan:     func() Plan { mu.Lock(); defer mu.Unlock(); return plan },
		Inputs:   func() Inputs { mu.Lock(); defer mu.Unlock(); return now.inputs(plan.Prefixes) },
		Password: func(string) (string, bool) { mu.Lock(); defer mu.Unlock(); return now.Password, now.Password != "" },
		Settings: func(b *topology.BGP) Settings {
			return Settings{MinAnnouncers: *b.MinAnnouncers, Drain: time.Duration(b.Drain), Rise: time.Duration(b.Rise), Fall: 200 * time.Millisecond, Settle: 500 * time.Millisecond}
		},
	})
	telling := time.NewTicker(20 * time.Millisecond)
	defer telling.Stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for before := []byte(nil); ; {
		if text, err := json.Marshal(s.Status()); err != nil {
			return err
		} else if !bytes.Equal(text, before) {
			fmt.Printf("%s\n", text)
			before = text
		}
		select {
		case <-telling.C:
		case <-ended:
			return nil
		}
	}
}

// process is a speaker of a test.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   *lockedBuffer
	ended chan error

	mu     sync.Mutex
	status Status
}

// lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startSpeaker starts a speaker, with some words before its command, such as those of ip netns exec.
func startSpeaker(t *testing.T, name string, first orders, before ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(slices.Clone(before), self)
	p := &process{t: t, name: name, cmd: exec.Command(words[0], words[1:]...), log: new(lockedBuffer), ended: make(chan error, 1)}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), asSpeaker+"="+name), p.log
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		p.stdin, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.tell(first)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var status Status
			if json.Unmarshal(lines.Bytes(), &status) == nil {
				p.mu.Lock()
				p.status = status
				p.mu.Unlock()
			}
		}
		p.ended <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		p.stdin.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.log)
		}
	})
	return p
}

func (p *process) tell(o orders) {
	p.t.Helper()
	text, err := json.Marshal(o)
	if err == nil {
		_, err = p.stdin.Write(append(text, '\n'))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) now() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// until waits until something is so, and returns how long that took.
func until(t *testing.T, what string, is func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !is() {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("never: %s", what)
		}
		<-look.C
	}
	return time.Since(start)
}

// established reports whether all sessions of a speaker are.
func (p *process) established() bool {
	s := p.now().Sessions
	return len(s) > 0 && !slices.ContainsFunc(s, func(one Session) bool { return one.State != Established })
}

func (p *process) reason() string {
	var all []string
	for _, one := range p.now().Prefixes {
		all = append(all, one.Reason)
	}
	return strings.Join(all, "; ")
}
