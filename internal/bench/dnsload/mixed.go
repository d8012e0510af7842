package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

const (
	warmUp = 50 * time.Millisecond // of each slice, not measured
	settle = 2 * time.Millisecond  // in which a server without questions goes to sleep
)

// participant is a server of a mixed comparison, which is up already.
type participant struct {
	Server  string `json:"server"`
	Addr    string `json:"addr"`
	Session int    `json:"session"` // of its processes
	Check   bool   `json:"check"`   // decode some answers, as -check does
	Hog     string `json:"hog"`     // file of its idlehog, or nothing
	During  string `json:"during"`  // shell command that runs during its slices, and prints a JSON object when it is told to end

	target netip.AddrPort
	hog    *hog
}

// measured is one slice as it is printed.
type measured struct {
	Server    string          `json:"server"`
	Round     int             `json:"round"`
	Place     int             `json:"place"` // in the order of the round
	Sockets   int             `json:"sockets"`
	InFlight  int             `json:"outstanding"`
	*result                   //
	CPU       float64         `json:"cpu"`               // share of the core that the server used
	CPUMicros float64         `json:"cpu_us"`            // of the server, for one answer
	CoreUS    *float64        `json:"core_us,omitempty"` // of the core, whatever it did, for one answer: what the hog did not get
	IdleCPU   float64         `json:"idle_cpu"`          // share of the core that the servers used which were not asked
	Others    float64         `json:"others"`            // CPU that everybody else used, in cores
	During    json.RawMessage `json:"during,omitempty"`
}

// mix runs a mixed comparison.
type mix struct {
	config
	slice     time.Duration
	plan      []*participant
	datagrams *datagrams
	order     *rand.Rand
	sessions  map[int]bool // of the servers
}

func readPlan(path string) ([]*participant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var plan []*participant
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	for {
		p := &participant{}
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if p.hog, err = openHog(p.Hog); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Server, err)
		}
		plan = append(plan, p)
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("%s has no server", path)
	}
	return plan, nil
}

// run does all rounds, each with every server in a new order.
func (m *mix) run(rounds int, out *json.Encoder) error {
	m.sessions = map[int]bool{}
	whole := time.Duration(rounds*len(m.plan)) * (m.slice + warmUp)
	for _, p := range m.plan {
		var err error
		if p.target, err = loadtool.Guard(p.Addr, whole); err != nil {
			return fmt.Errorf("%s, over all slices: %w", p.Server, err)
		}
		m.sessions[p.Session] = true
	}
	for round := 1; round <= rounds; round++ {
		for place, i := range m.order.Perm(len(m.plan)) {
			s, err := m.measure(m.plan[i])
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", m.plan[i].Server, round, err)
			}
			s.Round, s.Place = round, place
			if err := out.Encode(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// reading is what is read before and after a slice, while the server sleeps.
type reading struct {
	at    time.Time
	usage usage
	hog   time.Duration
}

// measure runs one slice. The server's CPU time is read when all questions of the warm-up, and then of the slice, have been
// answered or given up; so it is exact, and belongs to just the answers that are counted.
func (m *mix) measure(p *participant) (*measured, error) {
	runtime.GC()
	m.check = p.Check
	during, err := startDuring(p.During)
	if err != nil {
		return nil, err
	}
	defer during.kill()
	p.hog.run(true)
	defer p.hog.run(false)
	l, err := newLoader(p.target, m.config, m.datagrams)
	if err != nil {
		return nil, err
	}
	defer l.close()
	l.drain(l.run(warmUp))
	before, err := m.read(p)
	if err != nil {
		return nil, err
	}
	r := l.run(m.slice)
	l.drain(r)
	after, err := m.read(p)
	if err != nil {
		return nil, err
	}
	s := &measured{Server: p.Server, Sockets: m.sockets, InFlight: m.outstanding, result: r}
	took, answers := after.at.Sub(before.at), float64(max(r.Answered, 1))
	cpu, idle, others := after.usage.since(before.usage, p.Session, m.sessions)
	s.CPU = cpu.Seconds() / r.Seconds
	s.CPUMicros = float64(cpu) / 1e3 / answers
	s.IdleCPU = float64(idle) / float64(took)
	s.Others = float64(others) / float64(took)
	if p.hog != nil {
		free := after.hog - before.hog
		core := float64(took-free) / 1e3 / answers
		s.CoreUS = &core
	}
	s.During, err = during.end()
	return s, err
}

func (m *mix) read(p *participant) (reading, error) {
	time.Sleep(settle)
	r := reading{at: time.Now(), hog: p.hog.got()}
	var err error
	if r.usage, err = readUsage(); err == nil && !r.usage.serves(p.Session) {
		err = fmt.Errorf("session %d has no process on core %d: its server has ended, or is not pinned", p.Session, serverCore)
	}
	return r, err
}

// background is a shell command that runs during a slice. A nil background does nothing.
type background struct {
	line    string
	command *exec.Cmd
	output  *bufio.Reader
	ended   bool
}

// startDuring starts the command and waits for its first line, which says that it works.
func startDuring(line string) (*background, error) {
	if line == "" {
		return nil, nil
	}
	b := &background{line: line, command: exec.Command("bash", "-c", "exec "+line)}
	b.command.Stderr = os.Stderr
	b.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := b.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.output = bufio.NewReader(pipe)
	if err := b.command.Start(); err != nil {
		return nil, err
	}
	if _, err := b.output.ReadString('\n'); err != nil {
		b.kill()
		return nil, fmt.Errorf("%q did not begin: %w", line, err)
	}
	return b, nil
}

// end tells the command to end and returns what it prints then.
func (b *background) end() (json.RawMessage, error) {
	if b == nil {
		return nil, nil
	}
	b.ended = true
	_ = b.command.Process.Signal(syscall.SIGTERM) // if it has ended already, Wait says why
	var printed json.RawMessage
	failed := json.NewDecoder(b.output).Decode(&printed)
	if err := errors.Join(failed, b.command.Wait()); err != nil {
		return nil, fmt.Errorf("%q: %w", b.line, err)
	}
	return printed, nil
}

func (b *background) kill() {
	if b != nil && !b.ended {
		_ = b.command.Process.Kill()
		_ = b.command.Wait()
	}
}
