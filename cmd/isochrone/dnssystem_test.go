package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// TestDNSNodeSocketActivation passes sockets as systemd does.
func TestDNSNodeSocketActivation(t *testing.T) {
	notified := listenNotify(t)
	shell := need(t, "sh")
	tcp, udp := sockettest.Both(t)
	other, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}) // which nobody has asked for
	if err != nil {
		t.Fatal(err)
	}
	var passed []*os.File
	for _, socket := range []interface{ File() (*os.File, error) }{tcp.(*net.TCPListener), udp, other} {
		file, err := socket.File()
		if err != nil {
			t.Fatal(err)
		}
		passed = append(passed, file)
	}
	addr := tcp.Addr().String()
	tcp.Close()
	udp.Close()
	unasked := other.Addr().String()
	other.Close()
	command := exec.Command(shell, "-c", `LISTEN_PID=$$ LISTEN_FDS=3 exec "$0" "$@"`,
		programOf(t, "dns"), "dns", "--dir", t.TempDir(), "--listen", addr, "--http", "127.0.0.1:0", "--workers", "3", "--etcd", "http://127.0.0.1:1")
	command.ExtraFiles = passed
	p := startCommand(t, "DNS node serves "+addr, command)
	for _, file := range passed {
		file.Close()
	}
	notified.until(t, "READY=1")
	for range 20 { // from as many ports
		if err := askOnce(addr); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
			t.Errorf("got %v", err)
		}
	}
	p.says(t, unasked)
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the reload to be told", func() error {
		if !strings.Contains(notified.String(), "RELOADING=1\nMONOTONIC_USEC=") || strings.Count(notified.String(), "READY=1") < 2 {
			return errors.New(notified.String())
		}
		return nil
	})
	p.interrupt(t)
	notified.until(t, "STOPPING=1")
}

func TestDNSNodeBecomesAUser(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Getuid() != 0 {
		t.Skip("only root can become nobody")
	}
	if err := os.Chmod(filepath.Dir(t.TempDir()), 0o755); err != nil { // the folders above are the test's own
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	p := start(t, "DNS node serves", "dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--user", "nobody", "--etcd", "http://127.0.0.1:1")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.command.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("got %v, %v", tasks, err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		}
		want := fmt.Sprintf("\nUid:\t%[1]s\t%[1]s\t%[1]s\t%[1]s\n", nobody.Uid)
		if err != nil || !strings.Contains(string(status), want) {
			t.Errorf("%s: got %s, %v", task, status, err)
		}
	}
	p.interrupt(t)
	if said := mustFail(t, "dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", "", "--user", "no-such-user"); !strings.Contains(said, "no-such-user") {
		t.Errorf("an unknown user: %s", said)
	}
}
