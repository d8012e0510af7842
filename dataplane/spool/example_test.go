package spool_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// A request with an Idempotency-Key is stored once, forwarded, and remembered.
func Example() {
	dir, err := os.MkdirTemp("", "spool")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	queue, err := spool.Open(dir, spool.Options{Seal: func(batch []*spool.Envelope) {
		for _, e := range batch {
			e.Receipt = "a signature for " + e.ID
		}
	}})
	if err != nil {
		panic(err)
	}
	defer queue.Close()

	body := []byte(`{"hash":"0x1"}`)
	e := &spool.Envelope{ID: "sin1.core", SHA256: sha256.Sum256(body), KeyID: "key", Received: time.Now(), Body: body}
	earlier, err := queue.AppendOnce(e, nil)
	fmt.Println(earlier == nil, err, e.Receipt)

	other := []byte(`{"hash":"0x2"}`)
	earlier, err = queue.AppendOnce(&spool.Envelope{ID: "sin1.core", SHA256: sha256.Sum256(other), KeyID: "key", Received: time.Now(), Body: other}, nil)
	fmt.Println(earlier.ID, err, earlier.SHA256 == sha256.Sum256(other)) // another payload under the same key: 422

	items, err := queue.Take(context.Background(), 16, nil)
	fmt.Println(len(items), err)
	queue.Delivered(items[0], "eu")

	outcome, ok := queue.Lookup("sin1.core")
	fmt.Println(outcome.State, outcome.Cluster, ok)
	// Output:
	// true <nil> a signature for sin1.core
	// sin1.core <nil> false
	// 1 <nil>
	// delivered eu true
}
