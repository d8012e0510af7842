//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/isochrone/isochrone/dataplane"
)

// post posts as one client to one PoP, until ctx ends, with pauses.
func (w *quotaWorld) post(ctx context.Context, pop, key string, pause time.Duration) {
	for ctx.Err() == nil {
		rest := pause
		switch status, err := w.postOne(pop, key); {
		case status == http.StatusAccepted && err == nil:
		case status == http.StatusTooManyRequests:
			w.refused(key)
			rest = min(*quotaWindow/50, 100*time.Millisecond)
		default:
			rest = 50 * time.Millisecond
			w.mu.Lock()
			w.lastError = fmt.Errorf("%s: %d, %w", pop, status, err)
			w.mu.Unlock()
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
}

// postOne posts something that is unlike all else.
func (w *quotaWorld) postOne(pop, key string) (status int, err error) {
	body := fmt.Appendf(nil, `{"hash":"0x%x","sender":%q,"amount":"1"}`, [2]uint64{rand.Uint64(), rand.Uint64()}, key)
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	w.sent(key, hash)
	// It has no context, so as to see all answers.
	request, err := http.NewRequest(http.MethodPost, "https://"+w.PoPs[pop]+dataplane.Path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Host = "intake.isochrone.test"
	request.Header = http.Header{"X-Api-Key": {w.secrets[key]}, "Content-Type": {"application/json"}}
	answer, err := w.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusAccepted {
		return answer.StatusCode, fmt.Errorf("%s", text)
	}
	window, wrong := strconv.ParseInt(answer.Header.Get("X-Isochrone-Window"), 10, 64)
	if wrong != nil {
		w.Errorf("a 202 has the window %q", answer.Header.Get("X-Isochrone-Window"))
	}
	var told dataplane.Accepted
	if err = cmp.Or(err, json.Unmarshal(text, &told)); err != nil { // the answer was cut off as the PoP was killed
		return answer.StatusCode, err
	}
	w.took(told.ID, quotaAccepted{hash, window, pop}, time.Now())
	return answer.StatusCode, nil
}
