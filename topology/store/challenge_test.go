package store

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

func TestChallengesOnDisk(t *testing.T) {
	a := topology.NewAssembler(nil, 0)
	a.Put("acme/challenges/a.example", topology.MarshalValue(topology.NewChallenge(strings.Repeat("v", 43), time.Hour, time.Now())))
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	if err := Save(path, a.Snapshot(7)); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path)
	if err != nil || loaded.Challenges["a.example"] == nil {
		t.Errorf("got %v, %v: want the challenge", loaded, err)
	}
	if !SectionsOf("dns").Have("acme/challenges/a.example") || SectionsOf("pop").Have("acme/challenges/a.example") || SectionsOf("control").Have("acme/store/x") {
		t.Error("DNS nodes follow challenges, PoPs do not, and nobody what ACME keeps")
	}
}
