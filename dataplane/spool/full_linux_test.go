package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestFullFileSystem fills a real file system of 4 MiB: it is refused with ErrFull and never half accepted, room is made by what clusters
// acknowledge, and all that was accepted is there after a restart.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("mount a small file system: %v: run this as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := open(folder(dir), Options{})
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string][]byte{}
	n := 0
	fill := func() (added int) {
		for refused := 0; refused < 20; n++ {
			e := envelope(fmt.Sprint("pop.", n), bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 5000))
			switch err := s.Append(e, nil); {
			case err == nil:
				accepted[e.ID] = e.Body
				added++
			case errors.Is(err, ErrFull):
				refused++
			default:
				t.Fatal(err)
			}
		}
		return added
	}
	if first := fill(); first < 100 {
		t.Fatalf("a file system of 4 MiB took %d envelopes of 10 KB", first)
	}
	for round := range 5 {
		items := drain(t, s)
		for i, item := range items {
			if !bytes.Equal(item.Body, accepted[item.ID]) {
				t.Fatalf("%s came with other bytes", item.ID)
			}
			if i < len(items)*3/4 {
				s.Delivered(item, "eu")
				delete(accepted, item.ID)
			} else {
				s.Return(item)
			}
		}
		s.tick()
		s.tick()
		if more := fill(); more < 50 {
			t.Fatalf("round %d: room was made, but it took %d", round, more)
		}
	}
	if err := s.Close(); err != nil {
		t.Logf("closed with %v", err) // settlements have no room
	}
	if s, err = open(folder(dir), Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found := map[string]bool{}
	for _, item := range drain(t, s) {
		if body, ok := accepted[item.ID]; ok && !bytes.Equal(item.Body, body) {
			t.Errorf("%s came back with other bytes", item.ID)
		}
		found[item.ID] = true
	}
	for id := range accepted {
		if !found[id] {
			t.Errorf("accepted envelope %s is lost", id)
		}
	}
}
