// Command idle opens HTTP/3 connections to a PoP on loopback, sends one request over each, leaves them idle, and prints what each of
// them costs the PoP's process, as one JSON object: resident memory, and what its metrics tell of heap and stacks.
//
//	idle -url https://127.0.1.1:8443/api/v1/ingest -ca ca.pem -metrics http://127.0.0.1:9154/metrics -pid 1234 -conns 2000
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

// perPrefix is how many connections come from one /24, which a PoP bounds.
const perPrefix = 100

// memory is what a process takes, in octets.
type memory struct {
	Resident   int64 `json:"resident"`
	Heap       int64 `json:"heap"` // in use, garbage too
	Stacks     int64 `json:"stacks"`
	Goroutines int64 `json:"goroutines"`
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("idle: ")
	target := flag.String("url", "https://127.0.1.1:8443/api/v1/ingest", "intake `URL`; its host must be a loopback address")
	ca := flag.String("ca", "", "PEM `file` of the certificate authority to trust")
	metrics := flag.String("metrics", "http://127.0.0.1:9154/metrics", "`URL` of the PoP's metrics")
	pid := flag.Int("pid", 0, "process `id` of the PoP")
	conns := flag.Int("conns", 2000, "connections")
	settle := flag.Duration("settle", 5*time.Second, "how long they are left alone before the PoP is looked at")
	flag.Parse()
	u, err := url.Parse(*target)
	fatal(err)
	_, err = loadtool.Guard(u.Host, time.Second)
	fatal(err)
	pem, err := os.ReadFile(*ca)
	fatal(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	before, err := look(*pid, *metrics)
	fatal(err)
	var (
		opening sync.WaitGroup
		slots   = make(chan struct{}, 16)
		tick    = time.NewTicker(time.Second / 400)
		failed  = make(chan error, *conns)
	)
	for i := 0; i < *conns; {
		prefix := byte(i/perPrefix + 1)
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 9, prefix, 1)})
		fatal(err)
		transport := &quic.Transport{Conn: udp}
		for n := 0; n < perPrefix && i < *conns; n, i = n+1, i+1 {
			<-tick.C
			slots <- struct{}{}
			opening.Go(func() {
				failed <- open(transport, u, roots)
				<-slots
			})
		}
	}
	opening.Wait()
	opened := 0
	for range *conns {
		if err := <-failed; err == nil {
			opened++
		} else if opened == 0 || opened == *conns-1 {
			log.Print(err)
		}
	}
	time.Sleep(*settle)
	after, err := look(*pid, *metrics)
	fatal(err)
	each := func(a, b int64) int64 { return (a - b) / int64(max(1, opened)) }
	fatal(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"connections": opened, "before": before, "after": after,
		"each": memory{
			each(after.Resident, before.Resident), each(after.Heap, before.Heap), each(after.Stacks, before.Stacks), each(after.Goroutines, before.Goroutines),
		},
	}))
}

// open opens a connection and sends one request over it.
func open(transport *quic.Transport, u *url.URL, roots *x509.CertPool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	at, err := net.ResolveUDPAddr("udp4", u.Host)
	if err != nil {
		return err
	}
	config := &tls.Config{RootCAs: roots, ServerName: u.Hostname(), NextProtos: []string{http3.NextProtoH3}}
	conn, err := transport.Dial(ctx, at, config, &quic.Config{MaxIdleTimeout: time.Minute, KeepAlivePeriod: 10 * time.Second})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	response, err := (&http3.Transport{}).NewClientConn(conn).RoundTrip(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// look returns what a process takes.
func look(pid int, metrics string) (m memory, err error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			m.Resident = kib << 10
		}
	}
	response, err := http.Get(metrics)
	if err != nil {
		return m, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch name {
		case "go_memstats_heap_inuse_bytes":
			m.Heap = int64(value)
		case "go_memstats_stack_inuse_bytes":
			m.Stacks = int64(value)
		case "go_goroutines":
			m.Goroutines = int64(value)
		}
	}
	return m, nil
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
