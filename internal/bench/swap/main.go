// Command swap edits an Isochrone world many times a second, by its etcd's JSON gateway: an override drains a PoP, and the next
// edit deletes it, so that each edit makes another view. It prints a line when the first edit is done and a JSON object when
// it is told to end (SIGINT, SIGTERM).
//
//	taskset -c 1 swap -etcd http://127.0.0.1:17300 -rate 100
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/internal/bench/internal/loadtool"
)

const maxTime = 5 * time.Minute // in which it ends by itself

// editor makes the edits.
type editor struct {
	etcd, key, pop string
	drained        bool
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("swap: ")
	etcd := flag.String("etcd", "", "`URL` of etcd, on loopback")
	rate := flag.Float64("rate", 100, "edits a second")
	pop := flag.String("pop", "jnb", "`name` of the PoP that is drained")
	root := flag.String("prefix", "/isochrone/", "`key` below which everything stands in etcd")
	flag.Parse()
	if *rate <= 0 || *rate > 10_000 {
		log.Fatalf("-rate %v: want more than 0 and at most 10000", *rate)
	}
	u, err := url.Parse(*etcd)
	fatal(err)
	_, err = loadtool.Guard(u.Host, maxTime)
	fatal(err)
	e := &editor{etcd: *etcd, key: *root + "overrides/swap-" + *pop, pop: *pop}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()

	fatal(e.edit())
	fmt.Println("swapping")
	start, edits := time.Now(), 0
	tick := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			fatal(e.edit())
			edits++
		case <-ctx.Done():
		}
	}
	seconds := time.Since(start).Seconds()
	if e.drained {
		fatal(e.edit())
	}
	fatal(json.NewEncoder(os.Stdout).Encode(map[string]float64{"edits": float64(edits), "per_second": float64(edits) / seconds}))
}

// edit drains the PoP, or ends the drain.
func (e *editor) edit() error {
	call, body := "/v3/kv/deleterange", map[string][]byte{"key": []byte(e.key)}
	if !e.drained {
		now := time.Now().UTC()
		call = "/v3/kv/put"
		body["value"] = fmt.Appendf(nil, "schema: 1\nkind: drain\npop: %s\nreason: benchmark\nauthor: benchmark\ncreated: %s\nexpires: %s\n",
			e.pop, now.Format(time.RFC3339), now.Add(maxTime).Format(time.RFC3339))
	}
	text, err := json.Marshal(body) // the gateway wants keys and values in base64, as encoding/json writes bytes
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Post(e.etcd+call, "application/json", bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<16)) // to the end, so that the connection is used again
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s answered %s: %s", e.etcd, call, response.Status, answer)
	}
	e.drained = !e.drained
	return nil
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
