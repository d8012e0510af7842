package scenarios

import (
	"strings"
	"testing"
)

// TestAll reads all scenarios: each has the name of its file, something to hold, and a short form.
func TestAll(t *testing.T) {
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if s.Name != name || s.Summary == "" || len(s.Asserts) == 0 {
			t.Errorf("%s: its name is %s, it has %d assertions", name, s.Name, len(s.Asserts))
		}
	}
	if _, err := Load("flash-croud"); err == nil || !strings.Contains(err.Error(), "flash-crowd") {
		t.Errorf("got %v", err)
	}
}
