package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// idempotency repeats requests.
func (c *contract) idempotency(t *testing.T, over wire) {
	key := fmt.Sprint("key of ", over.name)
	r := call{}.with("Idempotency-Key", key)
	first := c.accepted(t, "the first", c.send(t, over, r), contractPayload, "application/json")
	for range 3 {
		if again := c.accepted(t, "a repetition", c.send(t, over, r), contractPayload, "application/json"); again != first {
			t.Errorf("got the ids %s and %s", first, again)
		}
	}
	r.body = contractPayload + " "
	c.send(t, over, r).problem(t, "another payload with the same Idempotency-Key", 422)
	if other := c.accepted(t, "another key", c.send(t, over, r.with("Idempotency-Key", key+"x")), r.body, "application/json"); other == first {
		t.Errorf("two Idempotency-Keys have the id %s", other)
	}
	a, b := c.send(t, over, call{}), c.send(t, over, call{})
	if c.accepted(t, "none", a, contractPayload, "application/json") == c.accepted(t, "none", b, contractPayload, "application/json") {
		t.Error("two requests without an Idempotency-Key have one id")
	}
}

// receipts asks what has become of a request.
func (c *contract) receipts(t *testing.T, over wire) {
	id := c.accepted(t, "a payload", c.send(t, over, call{}), contractPayload, "application/json")
	var promised struct{ Receipt string }
	if got := c.send(t, over, call{}); json.Unmarshal([]byte(got.body), &promised) != nil || strings.Count(promised.Receipt, "~") != 2 {
		t.Errorf("got the receipt %q", promised.Receipt)
	}
	if id == "" {
		return
	}
	at := call{method: "GET", path: "/api/v1/receipts/" + id}
	var told struct {
		Status, ID, SHA256, Cluster string
		Time                        time.Time
	}
	eventually(t, "the receipt to tell of the delivery", func() error {
		got := c.send(t, over, at)
		if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.status != 200 || told.Status != "delivered" {
			return fmt.Errorf("got %d %s", got.status, got.body)
		}
		return nil
	})
	if told.ID != id || told.Cluster != "ap" || time.Since(told.Time).Abs() > time.Minute {
		t.Errorf("got %+v", told)
	}
	other := strings.TrimSpace(c.run(t, "key", "create"))
	eventually(t, "another key to be known, and to be told nothing", func() error {
		if got := c.send(t, over, at.with("X-API-Key", other)); got.status != http.StatusNotFound {
			return fmt.Errorf("got %d %s", got.status, got.body)
		}
		return nil
	})
	c.send(t, over, at.with("X-API-Key", "")).problem(t, "no key", 401)
	at.path += "x"
	c.send(t, over, at).problem(t, "an id that there is not", 404)
	at.path = "/api/v1/receipts/" + strings.Repeat("a", 3000)
	c.send(t, over, at).problem(t, "a long id", 404)
	at.path = "/api/v1/receipts/"
	c.send(t, over, at).problem(t, "no id", 404)
	got := c.send(t, over, call{path: "/api/v1/receipts/" + id})
	got.problem(t, "a receipt is read", 405)
	if allow := got.header.Get("Allow"); !strings.Contains(allow, "GET") {
		t.Errorf("Allow is %q", allow)
	}
}
