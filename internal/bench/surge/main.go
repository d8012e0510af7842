// Command surge finds what an intake can do and then offers it a multiple of that: requests come at a fixed rate, whatever becomes of the
// ones before, over many connections, each from a network of its own. It prints one JSON object a round, and one of the medians: how many
// were accepted and refused, and how long after the moment at which each was due.
//
// A request that its connection may not carry yet (the limit of streams, flow control) waits at the client, and is given up after
// -patience: "unsent". So nothing that a server holds back looks as if it had not been offered.
//
//	surge -url https://127.0.0.1:8443/api/v1/ingest -insecure -key 'X-API-Key: secret' -conns 64 -factor 3 -rounds 5
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

// carrier is a connection. Send hands over a request that was due at a time; while the connection may carry no more it waits until
// another time, then it returns errUnsent. The outcome is told later, from another goroutine.
type carrier interface {
	send(ctx context.Context, due, until time.Time) error
	close()
}

var errUnsent = errors.New("the connection may carry no more")

func main() {
	log.SetFlags(0)
	log.SetPrefix("surge: ")
	target := flag.String("url", "https://127.0.0.1:8443/api/v1/ingest", "intake `URL`; its host must be a loopback address")
	proto := flag.String("proto", "h3", "h3 or h2")
	conns := flag.Int("conns", 64, "connections, each from another /24")
	rate := flag.Float64("rate", 0, "requests a second over all connections; 0: -factor times what was found")
	factor := flag.Float64("factor", 3, "what is offered, of what -outstanding requests on each connection have shown to be possible")
	outstanding := flag.Int("outstanding", 8, "requests on each connection when that is found")
	rounds := flag.Int("rounds", 3, "how often; the medians of all are printed last")
	size := flag.Int("body", 1024, "octets of a payload, which is a JSON object of its own in each request")
	key := flag.String("key", "", "API key `header`, such as 'X-API-Key: secret'")
	duration := flag.Duration("duration", 2*time.Second, "how long each part of a round is")
	ramp := flag.Duration("ramp", time.Second, "how long before that the same is offered and not counted")
	patience := flag.Duration("patience", time.Second, "how long a request waits at the client until it is given up")
	insecure := flag.Bool("insecure", false, "trust any certificate")
	obey := flag.Bool("obey", false, "a connection that was told Retry-After is silent for so long: what is due on it then counts as obeyed")
	pid := flag.Int("pid", 0, "`id` of the server's process, for its CPU time")
	flag.Parse()
	u, err := url.Parse(*target)
	fatal(err)
	_, err = loadtool.Guard(u.Host, time.Duration(*rounds)*2*(*duration+*ramp))
	fatal(err)
	name, value, _ := strings.Cut(*key, ":")
	r := &request{authority: u.Host, path: u.Path, keyName: strings.ToLower(name), key: strings.TrimSpace(value), size: *size}
	trust := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: *insecure, ServerName: u.Hostname()}
	dial := dial3
	if *proto == "h2" {
		dial = dial2
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := newSchedule(*patience, *obey, *conns)
	for i := range *conns {
		c, err := dial(trust, net.IPv4(127, byte(9+i>>8), byte(i), 1), i, u.Host, r, s.tell)
		for tries := 0; err != nil && tries < 50; tries++ { // a server may bound handshakes in a second
			time.Sleep(100 * time.Millisecond)
			c, err = dial(trust, net.IPv4(127, byte(9+i>>8), byte(i), 1), i, u.Host, r, s.tell)
		}
		fatal(err)
		s.add(ctx, c)
	}
	out := json.NewEncoder(os.Stdout)
	var all []map[string]float64
	for range *rounds {
		found := map[string]float64{}
		if *rate == 0 {
			found = s.part(*ramp, *duration, *pid, func(d time.Duration) { s.closed(d, *outstanding) })
		}
		peak := found["accepted_per_second"]
		offer := cmp.Or(*rate, peak**factor)
		round := s.part(*ramp, *duration, *pid, func(d time.Duration) { s.offer(d, offer) })
		if peak > 0 {
			round["peak_per_second"] = peak
			round["accepted_of_peak"] = round["accepted_per_second"] / peak
			round["offered_of_peak"] = round["offered_per_second"] / peak
			round["peak_server_cpu"] = found["server_cpu"]
			if used := found["server_cpu"]; used > 0 && round["server_cpu"] > 0 {
				round["accepted_of_peak_by_cpu"] = round["accepted_of_peak"] * used / round["server_cpu"]
			}
		}
		fatal(out.Encode(round))
		all = append(all, round)
	}
	if s.first != "" {
		log.Print("first error: ", s.first)
	}
	fatal(out.Encode(medians(all)))
	cancel()
	for _, c := range s.carriers {
		c.close()
	}
}

// medians has the median of each figure, and of the ratios the lowest too.
func medians(all []map[string]float64) map[string]float64 {
	result := map[string]float64{}
	for name := range all[0] {
		var values []float64
		for _, round := range all {
			values = append(values, round[name])
		}
		slices.Sort(values)
		result[name] = values[len(values)/2]
		if name == "accepted_of_peak" {
			result["lowest_accepted_of_peak"] = values[0]
		}
	}
	return result
}

// cpuOf returns the CPU time of a process, in steps of 10 ms.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system int64
	if len(fields) > 12 {
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
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

// request is what is sent, with a number of its own.
type request struct {
	authority, path, keyName, key string
	size                          int
}

// body appends a payload of the size that is wanted.
func (r *request) body(buf []byte, number uint64) []byte {
	before := len(buf)
	buf = fmt.Appendf(buf, `{"hash":"%016x","sender":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","amount":1,"data":"`, number)
	for len(buf)-before < r.size-2 {
		buf = append(buf, 'x')
	}
	return append(buf, '"', '}')
}
