// Command dnsload loads a DNS server over UDP on loopback from one thread. In the closed loop a fixed number of questions is
// always outstanding, and an answer or a timeout makes room for the next; with -rate questions are sent at random moments,
// so many a second, whether answers come or not. It prints one JSON object.
//
//	taskset -c 1 dnsload -addr 127.0.0.1:5300 -name intake.bench.test. -ecs random24 -duration 3s -check
//
// With -mixed it loads several servers in turn, a short slice each in every round, and prints one JSON object a slice.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("dnsload: ")
	var c config
	var o options
	addr := flag.String("addr", "127.0.0.1:5300", "server's loopback `IP:PORT`")
	name := flag.String("name", "intake.bench.test.", "question `name`")
	qtype := flag.String("qtype", "A", "question `type`")
	names := flag.String("names", "", "`file` with a name and a type a line, asked in turn, instead of -name and -qtype")
	flag.StringVar(&o.ecs, "ecs", "none", "client subnet: none, random24, or file:`PATH` with one prefix per line, sent in turn")
	flag.BoolVar(&o.edns, "edns", false, "send an OPT record (implied by -ecs, -do and -cookie)")
	flag.BoolVar(&o.do, "do", false, "set the DO bit")
	flag.BoolVar(&o.cookie, "cookie", false, "send DNS cookies: each socket one of its own, and the server's once that is known")
	duration := flag.Duration("duration", 3*time.Second, "how long to load; with -mixed, the length of a slice")
	flag.DurationVar(&c.timeout, "timeout", 200*time.Millisecond, "how long to wait for an answer")
	flag.IntVar(&c.outstanding, "outstanding", 512, "questions outstanding over all sockets; with -rate, at most")
	flag.IntVar(&c.sockets, "sockets", 4, "UDP sockets")
	flag.Float64Var(&c.rate, "rate", 0, "questions a second (default: the closed loop)")
	flag.BoolVar(&c.check, "check", false, fmt.Sprintf("decode 1 in %d answers; want NOERROR and an answer record", checkEvery))
	wait := flag.Duration("wait", 0, "first wait at most this long for the server's first answer")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of -ecs random24, of -rate and of the order of -mixed")
	mixed := flag.String("mixed", "", "`file` with one server a line as JSON: server, addr, session, check, hog, during")
	rounds := flag.Int("rounds", 20, "rounds of -mixed")
	flag.Parse()

	if c.sockets < 1 || c.outstanding < c.sockets || c.outstanding/c.sockets > 8192 {
		log.Fatalf("-outstanding %d over -sockets %d: want 1 to 8192 on each socket", c.outstanding, c.sockets)
	}
	if c.rate < 0 || c.rate > 10e6 {
		log.Fatalf("-rate %v: want 0 to 10 million", c.rate)
	}
	var asked []question
	if *names != "" {
		var err error
		asked, err = readNames(*names)
		fatal(err)
	} else {
		q, err := newQuestion(*name, *qtype)
		fatal(err)
		asked = []question{q}
	}
	var err error
	c.questions, err = newQuestions(asked, o)
	fatal(err)
	runtime.LockOSThread()
	if *mixed != "" {
		plan, err := readPlan(*mixed)
		fatal(err)
		m := mix{config: c, slice: *duration, plan: plan, datagrams: newDatagrams(), order: rand.New(rand.NewPCG(o.seed, 2))}
		fatal(m.run(*rounds, json.NewEncoder(os.Stdout)))
		return
	}
	target, err := loadtool.Guard(*addr, *duration)
	fatal(err)
	fatal(waitForServer(target, c.questions, *wait))
	l, err := newLoader(target, c, newDatagrams())
	fatal(err)
	defer l.close()
	r := l.run(*duration)
	fatal(json.NewEncoder(os.Stdout).Encode(r))
	if r.Answered == 0 || r.Bad > 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
