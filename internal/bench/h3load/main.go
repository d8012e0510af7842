// Command h3load posts payloads to an intake URL on loopback over HTTP/3, HTTP/2 or HTTP/1.1, and prints one JSON
// object. With -rate 0 it is a closed loop: each stream posts again as soon as it has an answer. With a rate it is an
// open loop: a request that had to wait for a free stream counts from when it was due, so no queue is hidden.
//
//	taskset -c 1 h3load -url https://127.0.0.1:8443/ -ca cert.pem -key 'X-API-Key: bench-key' -duration 3s
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sys/unix"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

// result is what is printed. Latencies are from the start of a request to the end of its answer's body.
type result struct {
	Protocol   string         `json:"proto"`
	RPS        float64        `json:"rps"` // answers with a 2xx status per second
	Seconds    float64        `json:"seconds"`
	Requests   uint64         `json:"requests"` // without the warm-up
	WarmUp     int            `json:"warm_up"`  // one answered request for each connection, before the clock starts
	Accepted   uint64         `json:"accepted"` // 2xx answers, without the warm-up
	Statuses   map[int]uint64 `json:"status"`
	Errors     uint64         `json:"errors"` // requests with no answer
	P50Micros  float64        `json:"p50_us"`
	P99Micros  float64        `json:"p99_us"`
	P999Micros float64        `json:"p999_us"`
	LoaderCPU  float64        `json:"load_cpu"` // cores used by the loader
	FirstError string         `json:"first_error,omitempty"`
}

// worker counts what one stream saw.
type worker struct {
	latency    loadtool.Histogram
	statuses   map[int]uint64
	errors     uint64
	firstError string
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("h3load: ")
	target := flag.String("url", "https://127.0.0.1:8443/", "intake `URL`; its host must be a loopback address")
	proto := flag.String("proto", "h3", "h3, h2 or h1")
	conns := flag.Int("conns", 4, "connections (h1: pools)")
	streams := flag.Int("streams", 16, "requests outstanding on each connection (h1: connections of each pool)")
	body := flag.String("body", "1024", "`size` in bytes of a JSON payload, different in each request; or a file's path")
	key := flag.String("key", "", "API key `header`, such as 'X-API-Key: secret'")
	hash := flag.Bool("hash", false, "send the payload's SHA-256 in X-Request-Hash")
	duration := flag.Duration("duration", 3*time.Second, "how long to load")
	rate := flag.Float64("rate", 0, "requests per second over all connections; 0 is a closed loop")
	ca := flag.String("ca", "", "PEM `file` of the certificate authority to trust")
	insecure := flag.Bool("insecure", false, "trust any certificate")
	wait := flag.Duration("wait", 0, "first wait at most this long for the server's first answer")
	grace := flag.Duration("grace", 2*time.Second, "how long requests may stay open after the end")
	flag.Parse()

	u, err := url.Parse(*target)
	fatal(err)
	_, err = loadtool.Guard(u.Host, *duration)
	fatal(err)
	if *conns < 1 || *streams < 1 || *conns**streams > 10_000 {
		log.Fatalf("-conns %d times -streams %d: want 1 to 10000", *conns, *streams)
	}
	payload, err := newPayload(*body)
	fatal(err)
	header, err := parseHeader(*key)
	fatal(err)
	trust, err := tlsConfig(*ca, *insecure)
	fatal(err)

	l := &load{url: u, header: header, payload: payload, hash: *hash, duration: *duration, rate: *rate}
	for range *conns {
		transport, err := newTransport(*proto, trust, *streams)
		fatal(err)
		fatal(l.warmUp(transport, *wait))
		l.transports = append(l.transports, transport)
	}
	r := l.run(*streams, *grace)
	r.Protocol = *proto
	for _, transport := range l.transports { // the server need not wait for idle timeouts
		if quic, ok := transport.(io.Closer); ok {
			_ = quic.Close()
		}
	}
	fatal(json.NewEncoder(os.Stdout).Encode(r))
	if r.Accepted == 0 {
		os.Exit(1)
	}
}

type load struct {
	url        *url.URL
	header     http.Header
	payload    *payload
	hash       bool
	duration   time.Duration
	rate       float64
	transports []http.RoundTripper
	tickets    atomic.Int64 // requests begun, for the open loop's schedule
}

func (l *load) run(streams int, grace time.Duration) *result {
	start, cpuBefore := time.Now(), cpuTime()
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(l.duration+grace))
	defer cancel()
	workers := make([]worker, len(l.transports)*streams)
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() { l.work(ctx, start, l.transports[i%len(l.transports)], &workers[i]) })
	}
	group.Wait()
	elapsed := time.Since(start)

	r := &result{Seconds: elapsed.Seconds(), WarmUp: len(l.transports), Statuses: map[int]uint64{}}
	var latency loadtool.Histogram
	for i := range workers {
		w := &workers[i]
		latency.Merge(&w.latency)
		r.Errors += w.errors
		r.Requests += w.errors
		for status, n := range w.statuses {
			r.Statuses[status] += n
			r.Requests += n
			if status/100 == 2 {
				r.Accepted += n
			}
		}
		if r.FirstError == "" {
			r.FirstError = w.firstError
		}
	}
	r.RPS = float64(r.Accepted) / r.Seconds
	r.P50Micros, r.P99Micros, r.P999Micros = latency.Micros(0.50), latency.Micros(0.99), latency.Micros(0.999)
	r.LoaderCPU = float64(cpuTime()-cpuBefore) / float64(elapsed)
	return r
}

func (l *load) work(ctx context.Context, start time.Time, transport http.RoundTripper, w *worker) {
	w.statuses = map[int]uint64{}
	for {
		due := time.Now()
		if l.rate > 0 {
			due = start.Add(time.Duration(float64(l.tickets.Add(1)) / l.rate * float64(time.Second)))
		}
		if due.Sub(start) >= l.duration {
			return
		}
		if early := time.Until(due); early > 0 {
			time.Sleep(early)
			due = time.Now() // a late wake-up is the loader's fault, not the server's
		}
		status, err := l.post(ctx, transport)
		if err != nil {
			w.errors++
			w.firstError = err.Error()
			time.Sleep(10 * time.Millisecond) // a dead server is not hammered
			continue
		}
		w.statuses[status]++
		w.latency.Add(time.Since(due))
	}
}

// post sends one payload and reads the whole answer.
func (l *load) post(ctx context.Context, transport http.RoundTripper) (int, error) {
	body, hash := l.payload.next(l.hash)
	request := (&http.Request{
		Method: http.MethodPost, URL: l.url, Host: l.url.Host, Header: l.header,
		Body: io.NopCloser(body), ContentLength: body.Size(),
	}).WithContext(ctx)
	if hash != "" {
		request.Header = l.header.Clone()
		request.Header.Set("X-Request-Hash", hash)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, fmt.Errorf("answer's body: %w", err)
	}
	return response.StatusCode, nil
}

// warmUp opens the connection with one request, tried again for as long as wait says.
func (l *load) warmUp(transport http.RoundTripper, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		status, err := l.post(ctx, transport)
		cancel()
		if err == nil && status/100 == 2 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no 2xx answer from %s within %s: status %d, error %v", l.url, wait, status, err)
		}
	}
}

func newTransport(proto string, trust *tls.Config, streams int) (http.RoundTripper, error) {
	protocols := new(http.Protocols)
	switch proto {
	case "h3":
		return &http3.Transport{TLSClientConfig: trust.Clone(), DisableCompression: true}, nil
	case "h2":
		protocols.SetHTTP2(true)
	case "h1":
		protocols.SetHTTP1(true)
	default:
		return nil, fmt.Errorf("-proto %q: want h3, h2 or h1", proto)
	}
	return &http.Transport{
		TLSClientConfig: trust.Clone(), Protocols: protocols, DisableCompression: true, MaxIdleConnsPerHost: streams,
	}, nil
}

func tlsConfig(ca string, insecure bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: insecure}
	if ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", ca)
	}
	return config, nil
}

func parseHeader(line string) (http.Header, error) {
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"h3load"}}
	if line == "" {
		return header, nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return nil, fmt.Errorf("-key %s: want 'Name: value'", strconv.Quote(line))
	}
	header.Set(name, strings.TrimSpace(value))
	return header, nil
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
