package spelling

import "testing"

func TestSuggest(t *testing.T) {
	known := []string{"listen", "etcd", "rate-limit"}
	for word, want := range map[string]string{
		"listne":     "did you mean listen?",
		"ratelimit":  "did you mean rate-limit?",
		"x":          "known are etcd, listen, rate-limit",
		"completely": "known are etcd, listen, rate-limit",
	} {
		if got := Suggest(word, known); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
