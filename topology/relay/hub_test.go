package relay

import (
	"testing"

	"github.com/isochrone/isochrone/topology/store"
)

// sumOf is the sum of what a hub has for a kind of node, reckoned anew.
func (h *Hub) sumOf(k kind) (sum store.Sum) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, value := range h.values {
		if store.SectionsOf(string(k)).Have(key) {
			sum.Combine(store.SumOf(key, value))
		}
	}
	return sum
}

// TestSumOfWhatWasNeverThere has a key come and go while the hub is busy: it is told of the end alone. With a wrong sum no node would ever
// be content again.
func TestSumOfWhatWasNeverThere(t *testing.T) {
	hub := NewHub(Config{})
	hub.take(store.Update{Revision: 1, Whole: true, Put: map[string][]byte{"topology/a": []byte("1"), "keys/k": []byte("2")}})
	hub.take(store.Update{Revision: 3, Put: map[string][]byte{"topology/a": []byte("3")}, Delete: []string{"topology/b", "keys/k"}})
	for _, k := range kinds {
		if got, want := hub.sums[k], hub.sumOf(k); got != want {
			t.Errorf("%s: the sum is %v, that of the values %v", k, got, want)
		}
	}
}
