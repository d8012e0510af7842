// Command dnsload loads a DNS server over UDP on loopback from one thread, in a closed loop: a fixed number of
// questions is always outstanding, and an answer or a timeout makes room for the next. It prints one JSON object.
//
//	taskset -c 1 dnsload -addr 127.0.0.1:5300 -name intake.bench.test. -ecs random24 -duration 3s -check
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

const (
	checkEvery  = 1000                  // answers to one that -check decodes
	expireEvery = 20 * time.Millisecond // how often timeouts are looked for
)

type config struct {
	target      netip.AddrPort
	name        string
	qtype       uint16
	questions   *questions
	duration    time.Duration
	timeout     time.Duration
	outstanding int
	sockets     int
	check       bool
}

// result is what is printed. Latencies are from the system call that sent to the one that received.
type result struct {
	QPS        float64 `json:"qps"`
	Answered   uint64  `json:"answered"`
	Seconds    float64 `json:"seconds"`
	Timeouts   uint64  `json:"timeouts"`
	Late       uint64  `json:"late"`    // answers after their timeout
	Errors     uint64  `json:"errors"`  // socket errors, datagrams that are no answers, rcodes other than NOERROR
	Checked    uint64  `json:"checked"` // answers decoded by -check
	Bad        uint64  `json:"bad"`     // of them, those without NOERROR and an answer record
	P50Micros  float64 `json:"p50_us"`
	P99Micros  float64 `json:"p99_us"`
	LoaderCPU  float64 `json:"load_cpu"` // share of one core that the loader used
	FirstError string  `json:"first_error,omitempty"`

	config  config
	latency loadtool.Histogram
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("dnsload: ")
	addr := flag.String("addr", "127.0.0.1:5300", "server's loopback `IP:PORT`")
	name := flag.String("name", "intake.bench.test.", "question `name`")
	qtype := flag.String("qtype", "A", "question `type`")
	ecs := flag.String("ecs", "none", "client subnet: none, random24, or file:`PATH` with one prefix per line, sent in turn")
	edns := flag.Bool("edns", false, "send an OPT record (implied by -ecs and -do)")
	do := flag.Bool("do", false, "set the DO bit")
	duration := flag.Duration("duration", 3*time.Second, "how long to load")
	timeout := flag.Duration("timeout", 200*time.Millisecond, "how long to wait for an answer")
	outstanding := flag.Int("outstanding", 512, "questions outstanding over all sockets")
	sockets := flag.Int("sockets", 4, "UDP sockets")
	check := flag.Bool("check", false, fmt.Sprintf("decode 1 in %d answers; want NOERROR and an answer record", checkEvery))
	wait := flag.Duration("wait", 0, "first wait at most this long for the server's first answer")
	seed := flag.Uint64("seed", 1, "seed of -ecs random24")
	flag.Parse()

	target, err := loadtool.Guard(*addr, *duration)
	fatal(err)
	code, ok := dns.StringToType[strings.ToUpper(*qtype)]
	if !ok {
		log.Fatalf("-qtype %q is no DNS type", *qtype)
	}
	if *sockets < 1 || *outstanding < *sockets || *outstanding / *sockets > 8192 {
		log.Fatalf("-outstanding %d over -sockets %d: want 1 to 8192 on each socket", *outstanding, *sockets)
	}
	q, err := newQuestions(*name, code, *ecs, *edns, *do, *seed)
	fatal(err)
	fatal(waitForServer(target, q, *wait))
	r, err := run(config{target, *name, code, q, *duration, *timeout, *outstanding, *sockets, *check})
	fatal(err)
	fatal(json.NewEncoder(os.Stdout).Encode(r))
	if r.Answered == 0 || r.Bad > 0 {
		os.Exit(1)
	}
}

func run(c config) (*result, error) {
	runtime.LockOSThread()
	r := &result{config: c}
	var flows []*flow
	var readable []unix.PollFd
	for range c.sockets {
		f, err := newFlow(c.target, c.outstanding/c.sockets)
		if err != nil {
			return nil, err
		}
		defer unix.Close(f.fd)
		flows = append(flows, f)
		readable = append(readable, unix.PollFd{Fd: int32(f.fd), Events: unix.POLLIN})
	}

	start, cpuBefore := time.Now(), cpuTime()
	now := func() time.Duration { return time.Since(start) }
	nextExpire := expireEvery
	for now() < c.duration {
		received := 0
		for _, f := range flows {
			received += f.receive(now, r)
			f.send(now(), c.questions, r)
		}
		if received == 0 {
			_, _ = unix.Poll(readable, int(expireEvery/time.Millisecond))
		}
		if t := now(); t > nextExpire {
			nextExpire = t + expireEvery
			for _, f := range flows {
				f.expire(t-c.timeout, r)
			}
		}
	}
	elapsed := now()
	r.Seconds = elapsed.Seconds()
	r.QPS = float64(r.Answered) / r.Seconds
	r.P50Micros, r.P99Micros = r.latency.Micros(0.50), r.latency.Micros(0.99)
	r.LoaderCPU = float64(cpuTime()-cpuBefore) / float64(elapsed)
	return r, nil
}

// answer counts one answer that matched its question, with a look at the rcode in the header of each.
func (r *result) answer(packet []byte, latency time.Duration) {
	r.Answered++
	r.latency.Add(latency)
	if rcode := int(packet[3] & 0xf); rcode != dns.RcodeSuccess {
		r.fail("rcode %s", dns.RcodeToString[rcode])
	}
	if r.config.check && r.Answered%checkEvery == 1 {
		r.Checked++
		if err := checkAnswer(packet, r.config.name, r.config.qtype); err != nil {
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
		_, _ = conn.Write(buf[:q.fill(buf, 1)]) // a refused datagram shows at the next call
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

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
