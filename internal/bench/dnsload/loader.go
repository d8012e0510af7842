package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

const (
	checkEvery  = 1000                  // answers to one that -check decodes
	expireEvery = 20 * time.Millisecond // how often timeouts are looked for
)

// config is how a server is loaded.
type config struct {
	questions   *questions
	timeout     time.Duration
	outstanding int
	sockets     int
	rate        float64 // questions a second; 0 is the closed loop
	check       bool
}

// result is what is printed. Latencies are from the system call that sent to the one that received; at a fixed rate, from the
// moment at which the question was due.
type result struct {
	QPS        float64 `json:"qps"` // answers within the time
	Answered   uint64  `json:"answered"`
	Seconds    float64 `json:"seconds"`
	Unsent     uint64  `json:"unsent"` // at a fixed rate: questions for which no slot was free
	Timeouts   uint64  `json:"timeouts"`
	Late       uint64  `json:"late"`    // answers after their timeout
	Errors     uint64  `json:"errors"`  // socket errors, datagrams that are no answers, rcodes other than NOERROR
	Checked    uint64  `json:"checked"` // answers decoded by -check
	Bad        uint64  `json:"bad"`     // of them, those without NOERROR and an answer record
	P50Micros  float64 `json:"p50_us"`
	P99Micros  float64 `json:"p99_us"`
	LoaderCPU  float64 `json:"load_cpu"` // share of one core that the loader used
	FirstError string  `json:"first_error,omitempty"`

	questions *questions
	checking  bool
	latency   loadtool.Histogram
}

// loader is the sockets to one server.
type loader struct {
	config
	flows    []*flow
	readable []unix.PollFd
	began    time.Time
	arrivals *rand.Rand
}

// newLoader opens the sockets. All flows share the datagrams' buffers.
func newLoader(target netip.AddrPort, c config, d *datagrams) (*loader, error) {
	seed := c.questions.options.seed
	l := &loader{config: c, began: time.Now(), arrivals: rand.New(rand.NewPCG(seed, 1))}
	cookies := rand.NewPCG(seed, uint64(l.began.UnixNano()))
	for range c.sockets {
		f, err := newFlow(target, c.outstanding/c.sockets, d)
		if err != nil {
			l.close()
			return nil, err
		}
		if c.questions.options.cookie {
			f.cookie = newCookie(cookies)
		}
		l.flows = append(l.flows, f)
		l.readable = append(l.readable, unix.PollFd{Fd: int32(f.fd), Events: unix.POLLIN})
	}
	return l, nil
}

func (l *loader) close() {
	for _, f := range l.flows {
		unix.Close(f.fd)
	}
}

func (l *loader) now() time.Duration { return time.Since(l.began) }

// run loads for a time.
func (l *loader) run(duration time.Duration) *result {
	r := &result{questions: l.questions, checking: l.check}
	start, cpuBefore := l.now(), cpuTime()
	end, nextExpire := start+duration, start+expireEvery
	sendDue := l.paced(start, r)
	for l.now() < end {
		received := 0
		for _, f := range l.flows {
			received += f.receive(l.now, r)
			if l.rate == 0 {
				f.send(l.now(), math.MaxInt, l.questions, r) // while its slots are in the cache
			}
		}
		if l.rate > 0 {
			sendDue() // and no sleep: a question is sent when it is due, not when a timer fires
		} else if received == 0 {
			_, _ = unix.Poll(l.readable, int(expireEvery/time.Millisecond))
		}
		if t := l.now(); t > nextExpire {
			nextExpire = t + expireEvery
			l.expire(t, r)
		}
	}
	elapsed := l.now() - start
	r.Seconds = elapsed.Seconds()
	r.QPS = float64(r.Answered) / r.Seconds
	r.P50Micros, r.P99Micros = r.latency.Micros(0.50), r.latency.Micros(0.99)
	r.LoaderCPU = float64(cpuTime()-cpuBefore) / float64(elapsed)
	return r
}

// paced returns a function that sends what is due: arrivals at random with the mean rate (a Poisson process), from the flows in turn.
func (l *loader) paced(start time.Duration, r *result) func() {
	due, turn := start, 0
	return func() {
		for now := l.now(); due <= now; due += time.Duration(l.arrivals.ExpFloat64() / l.rate * 1e9) {
			f := l.flows[turn]
			if turn++; turn == len(l.flows) {
				turn = 0
			}
			if f.send(due, 1, l.questions, r) == 0 {
				r.Unsent++
			}
		}
	}
}

// drain asks nothing more and counts answers until all have come or are given up.
func (l *loader) drain(r *result) {
	for {
		outstanding, received := 0, 0
		for _, f := range l.flows {
			received += f.receive(l.now, r)
			outstanding += f.outstanding()
		}
		if outstanding == 0 {
			return
		}
		if received == 0 {
			_, _ = unix.Poll(l.readable, int(expireEvery/time.Millisecond))
			l.expire(l.now(), r)
		}
	}
}

func (l *loader) expire(now time.Duration, r *result) {
	for _, f := range l.flows {
		f.expire(now-l.timeout, r)
	}
}

// answer counts one answer that matched its question, with a look at the rcode in the header of each.
func (r *result) answer(packet []byte, latency time.Duration) {
	r.Answered++
	r.latency.Add(latency)
	if rcode := int(packet[3] & 0xf); rcode != dns.RcodeSuccess {
		r.fail("rcode %s", dns.RcodeToString[rcode])
	}
	if r.checking && r.Answered%checkEvery == 1 {
		r.Checked++
		if err := r.questions.check(packet); err != nil {
			r.Bad++
			r.note("answer: %v", err)
		}
	}
}

func (r *result) fail(format string, args ...any) {
	r.Errors++
	r.note(format, args...)
}

func (r *result) note(format string, args ...any) {
	if r.FirstError == "" {
		r.FirstError = fmt.Sprintf(format, args...)
	}
}

// waitForServer asks until a first answer comes.
func waitForServer(target netip.AddrPort, q *questions, limit time.Duration) error {
	if limit == 0 {
		return nil
	}
	conn, err := net.Dial("udp", target.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, maxAnswer)
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		_, _ = conn.Write(buf[:q.fill(buf, 1, nil)]) // a refused datagram shows at the next call
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := conn.Read(buf); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no answer from %s within %s", target, limit)
}

func cpuTime() time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
