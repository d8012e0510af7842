// Package statedir knows the folder in which Isochrone keeps its state on one machine, and the file in it by which
// commands find a running "isochrone up".
package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Up describes a running "isochrone up" to commands and scripts. It is written once all of it is ready.
type Up struct {
	DNS      string            `json:"dns"`      // host:port, UDP and TCP
	API      string            `json:"api"`      // URL of the control API
	Etcd     string            `json:"etcd"`     // URL of etcd's client listener
	CA       string            `json:"ca"`       // path of the development CA's certificate
	APIKey   string            `json:"api_key"`  // the example world's API key
	PoPs     map[string]string `json:"pops"`     // name → host:port of the intake
	Clusters map[string]string `json:"clusters"` // name → URL
}

// ErrNotUp says that no "isochrone up" has written its file into the folder.
var ErrNotUp = errors.New("isochrone is not up")

const upFile = "up.json"

// Default returns the folder that is used when none is named: isochrone in the user's state directory.
func Default() string {
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "isochrone")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "isochrone")
	}
	return filepath.Join(home, ".local", "state", "isochrone")
}

// ReadUp reads the file of a running "isochrone up". The error is ErrNotUp when there is none.
func ReadUp(dir string) (*Up, error) {
	text, err := os.ReadFile(filepath.Join(dir, upFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: start it with \"isochrone up\", or name its folder with --dir", ErrNotUp, dir)
	}
	if err != nil {
		return nil, err
	}
	up := new(Up)
	if err := json.Unmarshal(text, up); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, upFile), err)
	}
	return up, nil
}

// WriteUp writes the file, whole or not at all, readable by its owner alone.
func WriteUp(dir string, up *Up) error {
	text, err := json.MarshalIndent(up, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, upFile+".tmp")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, upFile))
}

// RemoveUp removes the file, so that commands do not look for a process that has ended.
func RemoveUp(dir string) error {
	err := os.Remove(filepath.Join(dir, upFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
