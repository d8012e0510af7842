//go:build linux

// Package etcdtest runs a real etcd of three members, the server of the Debian package etcd-server, for tests that kill members, stop
// them, cut them off from each other, and fill their disks.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/internal/sockets/sockettest"
)

// patience is how long members may take to do what they should.
const patience = time.Minute

// Cluster is an etcd of three members.
type Cluster struct {
	Members []*Member
	links   *links
	flags   []string
	lives   int // how often it was destroyed
}

// Member is one of them.
type Member struct {
	Name   string
	Client string // URL for clients

	cluster *Cluster
	dir     string
	listen  string // for other members, who reach it by its link
	command *exec.Cmd
	pid     atomic.Int64 // of its process, 0 before the first
	output  *bytes.Buffer
	ended   chan struct{}
}

// Start starts three members with flags of etcd and waits until they answer. Without an etcd on this machine the test is skipped,
// or fails where all tools must be there (CI=true).
func Start(t testing.TB, flags ...string) *Cluster {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("etcd is missing: install etcd-server")
		}
		t.Skip("etcd is missing: install etcd-server")
	}
	c := &Cluster{flags: flags}
	c.links = newLinks(c.memberOf)
	for i := range 3 {
		m := &Member{Name: fmt.Sprintf("m%d", i), Client: "http://" + sockettest.Free(t).String(), cluster: c, dir: t.TempDir(), listen: sockettest.Free(t).String()}
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members { // all of whom the links may ask for
		if err := c.links.add(m.Name, m.listen); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, m := range c.Members {
			m.Kill()
			if t.Failed() {
				t.Logf("etcd %s printed at last:\n%s", m.Name, tail(m.output.String(), 20))
			}
		}
		c.links.close()
	})
	for _, m := range c.Members {
		m.Start(t)
	}
	for _, m := range c.Members {
		m.awaitReady(t)
	}
	return c
}

// Endpoints returns the URLs of all members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Client)
	}
	return all
}

// NewClient returns a client of all members, or of those that are given.
func (c *Cluster) NewClient(t testing.TB, of ...*Member) *clientv3.Client {
	t.Helper()
	endpoints := c.Endpoints()
	if len(of) > 0 {
		endpoints = nil
		for _, m := range of {
			endpoints = append(endpoints, m.Client)
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(), DialTimeout: 5 * time.Second, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// Leader waits for a member that leads, as at least one other member sees it, too.
func (c *Cluster) Leader(t testing.TB) *Member {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		votes := map[uint64]int{}
		ids := map[uint64]*Member{}
		for _, m := range c.Members {
			if status, err := m.status(); err == nil {
				votes[status.Leader]++
				ids[status.Header.MemberId] = m
			}
		}
		for id, n := range votes {
			if n >= 2 && ids[id] != nil {
				return ids[id]
			}
		}
		pause()
	}
	t.Fatal("etcd has no leader")
	return nil
}

// memberOf names the member whose process has the near end of a TCP connection that comes from a port of loopback.
func (c *Cluster) memberOf(port int) (string, error) {
	inode, err := inodeOf(port)
	if err != nil {
		return "", err
	}
	for _, m := range c.Members {
		pid := m.pid.Load()
		if pid == 0 {
			continue
		}
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, file := range files {
			if target, err := os.Readlink(file); err == nil && target == "socket:["+inode+"]" {
				return m.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no member has a connection from port %d", port)
}

// Start starts the member, or starts it again with the data that it has.
func (m *Member) Start(t testing.TB) {
	t.Helper()
	var initial []string
	for _, other := range m.cluster.Members {
		initial = append(initial, other.Name+"=http://"+m.cluster.links.at(other.Name))
	}
	m.output = new(bytes.Buffer)
	m.command = exec.Command("etcd", append([]string{
		"--name", m.Name, "--data-dir", filepath.Join(m.dir, "data"),
		"--listen-client-urls", m.Client, "--advertise-client-urls", m.Client,
		"--listen-peer-urls", "http://" + m.listen, "--initial-advertise-peer-urls", "http://" + m.cluster.links.at(m.Name),
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", fmt.Sprint(m.cluster.Members[0].dir, m.cluster.lives),
		"--heartbeat-interval", "100", "--election-timeout", "1000", "--log-level", "error", "--logger", "zap",
	}, m.cluster.flags...)...)
	m.command.Stdout, m.command.Stderr = m.output, m.output
	if err := m.command.Start(); err != nil {
		t.Fatal(err)
	}
	m.pid.Store(int64(m.command.Process.Pid))
	command, ended := m.command, make(chan struct{})
	m.ended = ended
	go func() {
		defer close(ended)
		_ = command.Wait() // it is killed in the end
	}()
}

// Restart starts a killed member again and waits until it answers.
func (m *Member) Restart(t testing.TB) {
	t.Helper()
	m.Start(t)
	m.awaitReady(t)
}

func (m *Member) awaitReady(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		status, err := m.status()
		if err == nil && status.Leader != 0 {
			return
		}
		select {
		case <-m.ended:
			t.Fatalf("etcd %s ended:\n%s", m.Name, tail(m.output.String(), 20))
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("etcd %s is not ready: %v", m.Name, err)
		}
		pause()
	}
}

// status asks the member itself.
func (m *Member) status() (*clientv3.StatusResponse, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}, Logger: zap.NewNop(), DialTimeout: time.Second})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return client.Status(ctx, m.Client)
}

// Kill is kill -9.
func (m *Member) Kill() {
	if m.command == nil {
		return
	}
	_ = m.command.Process.Signal(syscall.SIGCONT)
	_ = m.command.Process.Kill() // it may have ended
	<-m.ended
}

// Destroy kills all members and deletes their data.
func (c *Cluster) Destroy(t testing.TB) {
	t.Helper()
	for _, m := range c.Members {
		m.Kill()
	}
	c.lives++
	for _, m := range c.Members {
		if err := os.RemoveAll(filepath.Join(m.dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
}

// Rebuild starts a new cluster without data, at the addresses of the one that was destroyed.
func (c *Cluster) Rebuild(t testing.TB) {
	t.Helper()
	for _, m := range c.Members {
		m.Start(t)
	}
	for _, m := range c.Members {
		m.awaitReady(t)
	}
}

// CutOff cuts the member off from the others; clients reach it still.
func (m *Member) CutOff() { m.cluster.links.cut(m.Name, true) }

// Rejoin ends a CutOff.
func (m *Member) Rejoin() { m.cluster.links.cut(m.Name, false) }

// pause is between two looks at what is to become so.
func pause() { <-time.After(50 * time.Millisecond) }

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
