package privatefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadAndWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "secret")
	for _, text := range []string{"first", "second"} {
		if err := Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 6); err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("more than the file is left: %v, %v", left, err)
	}
	refused := func(want string) {
		t.Helper()
		if got, err := Read(path, 5); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %q, %v, want an error with %q and the path", got, err, want)
		}
	}
	refused("more than 5 octets")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		refused("want 0600 (chmod 600 " + path + ")")
	}
	path = dir
	refused("is no file")
	path = filepath.Join(dir, "none")
	refused("no such file")
}
