// Command firstpost starts an intake again and again, posts to it from the first moment on, and prints how long each start took until the
// first post was accepted, as JSON: the median and all of them, in milliseconds. The state directory is that of the start before.
//
//	firstpost -url https://127.0.0.1:8443/api/v1/ingest -key 'X-API-Key: secret' -n 10 -- isochrone pop bench --config config.yaml
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("firstpost: ")
	target := flag.String("url", "https://127.0.0.1:8443/api/v1/ingest", "intake `URL`; its host must be a loopback address")
	key := flag.String("key", "", "API key `header`, such as 'X-API-Key: secret'")
	n := flag.Int("n", 10, "starts")
	patience := flag.Duration("patience", 10*time.Second, "for each of them")
	flag.Parse()
	u, err := url.Parse(*target)
	fatal(err)
	_, err = loadtool.Guard(u.Host, *patience)
	fatal(err)
	var took []float64
	for range *n {
		took = append(took, float64(start(*target, *key, *patience).Microseconds())/1000)
	}
	sorted := slices.Sorted(slices.Values(took))
	fatal(json.NewEncoder(os.Stdout).Encode(map[string]any{"median_ms": sorted[len(sorted)/2], "starts_ms": took}))
}

// start starts the program, waits until it has accepted a post, and ends it.
func start(target, key string, patience time.Duration) time.Duration {
	command := exec.Command(flag.Arg(0), flag.Args()[1:]...)
	command.Stderr = os.Stderr
	began := time.Now()
	fatal(command.Start())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	name, value, _ := strings.Cut(key, ":")
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(`{"hash":"0xab","sender":"0x01","amount":"1"}`))
		fatal(err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set(name, strings.TrimSpace(value))
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
		}
		if ctx.Err() != nil {
			command.Process.Kill()
			log.Fatalf("no post was accepted in %v", patience)
		}
		if err == nil && response.StatusCode == http.StatusAccepted {
			break
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	fatal(command.Process.Signal(syscall.SIGTERM))
	_ = command.Wait() // its status is its own affair
	return took
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
