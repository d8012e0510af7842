package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// dnsProcess is a running "isochrone dns".
type dnsProcess struct {
	*process
	running // asks it
	monitored
}

// monitored is a process that can be monitored at a URL.
type monitored struct{ http string }

// servesLine is what a DNS node prints once it serves: addresses, process, URL of its monitoring.
var servesLine = regexp.MustCompile(`(?m)^DNS node serves ([0-9.:]+).* \(process (\d+), (http://[0-9.:]+)\)$`)

// startDNS starts a DNS node on free ports. It knows the world's PoPs, and has its key of probes.
func startDNS(t *testing.T, world *running, dir string, flags ...string) *dnsProcess {
	t.Helper()
	for _, name := range []string{"probe.key", "ca.pem"} {
		copyFile(t, filepath.Join(world.dir, name), filepath.Join(dir, name))
	}
	return startDNSIn(t, world, dir, flags...)
}

// startDNSIn starts a DNS node on free ports with what there is in its folder.
func startDNSIn(t *testing.T, world *running, dir string, flags ...string) *dnsProcess {
	t.Helper()
	args := append([]string{"dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}, flags...)
	d := &dnsProcess{process: start(t, "DNS node serves", args...)}
	found := servesLine.FindStringSubmatch(d.output.String())
	if found == nil {
		t.Fatalf("it says %s", d.output)
	}
	d.Up, d.DNS, d.http = world.Up, found[1], found[3]
	return d
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// get returns what the monitoring answers.
func (d *monitored) get(path string) (status int, body string, err error) {
	response, err := http.Get(d.http + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// isReady waits until /ready answers with a code, and says something.
func (d *monitored) isReady(t *testing.T, want int, says string) {
	t.Helper()
	eventually(t, fmt.Sprintf("/ready to be %d and say %s", want, says), func() error {
		status, body, err := d.get("/ready")
		if err == nil && (status != want || !strings.Contains(body, says)) {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}

// metric waits until a metric has a value.
func (d *monitored) metric(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, name+" to be "+want, func() error {
		_, body, err := d.get("/metrics")
		if err == nil && !strings.Contains(body, "\n"+name+" "+want+"\n") {
			err = errors.New(body)
		}
		return err
	})
}

// says waits until the process has logged something.
func (p *process) says(t *testing.T, what string) {
	t.Helper()
	eventually(t, "the log to say "+what, func() error {
		if !strings.Contains(p.output.String(), what) {
			return errors.New("it does not")
		}
		return nil
	})
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// load asks a DNS server up to 2000 times a second, each time from another port, until it is stopped. More would starve the
// probes of a small machine.
type load struct {
	stop     context.CancelFunc
	running  sync.WaitGroup
	answered atomic.Int64
	mu       sync.Mutex
	failures []string
}

// startLoad asks at a pace, four at a time.
func startLoad(t *testing.T, pace time.Duration, ask func() error) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	for range 4 {
		l.running.Go(func() {
			next := time.NewTicker(pace)
			defer next.Stop()
			for ctx.Err() == nil {
				<-next.C
				if err := ask(); err != nil {
					l.mu.Lock()
					l.failures = append(l.failures, err.Error())
					l.mu.Unlock()
				}
				l.answered.Add(1)
			}
		})
	}
	t.Cleanup(func() { cancel(); l.running.Wait() })
	return l
}

func askOnce(addr string) error {
	question := new(mdns.Msg).SetQuestion("intake.isochrone.test.", mdns.TypeA)
	client := mdns.Client{Timeout: 15 * time.Second}
	answer, _, err := client.Exchange(question, addr)
	if err == nil && (answer.Rcode != mdns.RcodeSuccess || len(answer.Answer) == 0) {
		err = fmt.Errorf("the answer is %s", mdns.RcodeToString[answer.Rcode])
	}
	return err
}

// more waits until some more questions have been asked.
func (l *load) more(t *testing.T) {
	t.Helper()
	began := l.answered.Load()
	eventually(t, "more answers", func() error {
		if l.answered.Load() < began+200 {
			return errors.New("too few")
		}
		return nil
	})
}

// end stops the load and fails the test if a question was not answered.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.running.Wait()
	if len(l.failures) > 0 {
		t.Errorf("%d of %d questions have no answer, such as: %s", len(l.failures), l.answered.Load(), l.failures[0])
	}
}

// TestDNSNodeWithoutEtcd loses etcd for good while it is asked all the time, and then a PoP.
func TestDNSNodeWithoutEtcd(t *testing.T) {
	t.Parallel()
	world := startUp(t, "", "--without", "sin1,nrt1")
	sin := start(t, "PoP sin1 serves", "pop", "sin1", "--dir", world.dir)
	start(t, "PoP nrt1 serves", "pop", "nrt1", "--dir", world.dir)
	dir := t.TempDir()
	d := startDNS(t, world, dir, "--etcd", world.Etcd)
	d.isReady(t, 200, `"in force"`)
	d.leads(t, "singapore", "sin1")
	d.metric(t, "isochrone_etcd_up", "1")

	l := startLoad(t, 2*time.Millisecond, func() error { return askOnce(d.DNS) })
	l.more(t)
	world.kill() // and with it etcd and all other PoPs
	d.says(t, "etcd cannot be used")
	d.metric(t, "isochrone_etcd_up", "0")
	l.more(t)
	sin.kill()
	d.leads(t, "singapore", "nrt1")
	l.end(t)
	d.isReady(t, 200, "no answer") // it is shown, and does not matter
	d.interrupt(t)

	// A start without etcd answers from disk, and finds out by itself who is dead.
	again := startDNS(t, world, dir, "--etcd", world.Etcd)
	again.says(t, "begins with the last good topology on disk")
	if err := askOnce(again.DNS); err != nil {
		t.Error(err)
	}
	again.leads(t, "singapore", "nrt1")
	again.isReady(t, 200, `"in force"`)
	if said := mustFail(t, "dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", ""); !strings.Contains(said, "in use by another isochrone") {
		t.Errorf("a second one in the same folder says %s", said)
	}
	again.interrupt(t)
}

// TestDNSNodeWithNothing has neither etcd nor anything on disk.
func TestDNSNodeWithNothing(t *testing.T) {
	t.Parallel()
	world := startUp(t, "")
	nowhere, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	d := startDNS(t, world, t.TempDir(), "--etcd", "http://"+nowhere.Addr().String())
	if err := askOnce(d.DNS); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("got %v", err)
	}
	d.isReady(t, 503, "no topology has been read")
	if status, body, err := d.get("/live"); status != 200 || err != nil {
		t.Errorf("/live: %d, %s, %v", status, body, err)
	}
	d.says(t, "etcd cannot be used")
	d.interrupt(t)

	dir := t.TempDir() // up.json and the password come later
	password := filepath.Join(t.TempDir(), "password")
	d = startDNS(t, world, dir, "--etcd-user", "dns", "--etcd-password-file", password)
	d.says(t, "no etcd is named")
	copyFile(t, filepath.Join(world.dir, "up.json"), filepath.Join(dir, "up.json"))
	d.says(t, "etcd-password-file")
	if err := os.WriteFile(password, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.says(t, "want 0600")
	if err := os.Chmod(password, 0o600); err != nil {
		t.Fatal(err)
	}
	d.says(t, "etcd answers again")
	d.leads(t, "singapore", "sin1")
	if strings.Contains(d.output.String(), "secret") {
		t.Error("the password stands in the log")
	}
	d.isReady(t, 200, `"in force"`)
	d.interrupt(t)
}

// TestDNSNodeBesideUp shares the folder of the world, and finds all that it needs there.
func TestDNSNodeBesideUp(t *testing.T) {
	t.Parallel()
	world := startUp(t, "", "--without", "sin1")
	d := startDNSIn(t, world, world.dir)
	d.leads(t, "singapore", "nrt1")
	d.isReady(t, 200, "answered ")
	d.interrupt(t)

	// Without a key nobody probes, and so the dead count as well; a key that comes is used.
	dir := t.TempDir()
	d = startDNSIn(t, world, dir, "--etcd", world.Etcd)
	d.says(t, "nobody probes from here")
	d.leads(t, "singapore", "sin1")
	d.isReady(t, 200, "nobody probes from here")
	d.metric(t, "isochrone_probing", "0")
	copyFile(t, filepath.Join(world.dir, "ca.pem"), filepath.Join(dir, "ca.pem"))
	copyFile(t, filepath.Join(world.dir, "probe.key"), filepath.Join(dir, "probe.key"))
	d.leads(t, "singapore", "nrt1")
	d.metric(t, "isochrone_probing", "1")
	d.isReady(t, 200, `"bound": "1m0s"`)
	d.interrupt(t)

	d = startDNSIn(t, world, dir, "--etcd", world.Etcd, "--probe=false")
	d.leads(t, "singapore", "sin1")
	d.interrupt(t)
}

// TestDNSNodeRestoredEtcd meets an etcd that was restored from an old backup, which it follows, and one that is empty, which it does not.
func TestDNSNodeRestoredEtcd(t *testing.T) {
	t.Parallel()
	world := startUp(t, "")
	d := startDNS(t, world, t.TempDir(), "--etcd", world.Etcd)
	d.leads(t, "singapore", "sin1")
	for range 5 {
		world.run(t, "drain", "sin1", "--reason", "to have more revisions", "--yes")
		world.run(t, "undrain", "sin1")
	}
	world.run(t, "drain", "fra1", "--reason", "to be remembered", "--yes")
	d.leads(t, "frankfurt", "iad1")
	world.kill()
	other := startUp(t, "", "--etcd", strings.TrimPrefix(world.Etcd, "http://"), "--pop-port", "0")
	d.says(t, "etcd has gone back to an earlier revision")
	d.leads(t, "frankfurt", "fra1")
	other.run(t, "drain", "sin1", "--reason", "to be seen", "--yes")
	d.leads(t, "singapore", "nrt1")
	d.metric(t, "isochrone_etcd_up", "1")

	other.kill()
	startEtcdAt(t, strings.TrimPrefix(world.Etcd, "http://"))
	d.isReady(t, 200, "has no topology")
	d.metric(t, "isochrone_etcd_up", "0")
	d.leads(t, "singapore", "nrt1")
	d.interrupt(t)
}

func TestDNSNodeReload(t *testing.T) {
	t.Parallel()
	world := startUp(t, "")
	folder := t.TempDir()
	config, table := filepath.Join(folder, "dns.yaml"), filepath.Join(folder, "table.csv")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "etcd: ["+world.Etcd+"]\n")
	d := startDNS(t, world, t.TempDir(), "--config", config)
	d.leads(t, "singapore", "sin1")

	// Faults change nothing, and all are told.
	write(config, "etcd: ["+world.Etcd+"]\nready-geo-age: 1h\nrate-limit: many\nnsdi: x\n")
	d.signal(t, syscall.SIGHUP)
	d.says(t, "dns.yaml:3: rate-limit: ")
	d.says(t, "dns.yaml:4: nsdi: unknown key; did you mean nsid?")
	d.isReady(t, 200, "rate-limit")
	d.metric(t, "isochrone_config_last_reload_successful", "0")

	// The geo database is older than an hour; another place of Singapore's clients; an address waits for a restart.
	write(table, "prefix,lat,lon,country,city,asn\n"+sendPlaces["singapore"]+",50.1,8.7,DE,Frankfurt,\n")
	write(config, "etcd: ["+world.Etcd+"]\nready-geo-age: 1h\ngeo-table: "+table+"\ntls-listen: []\nuser: nobody\n")
	d.signal(t, syscall.SIGHUP)
	d.says(t, "configuration read again")
	d.says(t, "flags=user")
	d.isReady(t, 503, "geo_age")
	d.leads(t, "singapore", "fra1")
	d.metric(t, "isochrone_config_last_reload_successful", "1")
	d.metric(t, "isochrone_ready", "0")

	write(config, "etcd: ["+world.Etcd+"]\n")
	d.signal(t, syscall.SIGHUP)
	d.leads(t, "singapore", "sin1")
	d.isReady(t, 200, `"as read last"`)
	d.interrupt(t)
}

func TestDNSNodeBrokenGeo(t *testing.T) {
	t.Parallel()
	world := startUp(t, "")
	dir, table := t.TempDir(), filepath.Join(t.TempDir(), "table.csv")
	good := []byte("prefix,lat,lon,country,city,asn\n" + sendPlaces["singapore"] + ",50.1,8.7,DE,Frankfurt,\n")
	if err := os.WriteFile(table, good, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--etcd", world.Etcd, "--geo-table", table}
	d := startDNS(t, world, dir, flags...)
	d.leads(t, "singapore", "fra1")
	d.interrupt(t)

	if err := os.WriteFile(table, []byte("this is no table\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = startDNS(t, world, dir, flags...)
	d.leads(t, "singapore", "fra1")
	d.says(t, `used instead"="the last good copy"`)
	d.isReady(t, 200, "broken files are replaced: geo-table: the last good copy")
	d.metric(t, "isochrone_geo_fallbacks", "1")
	if err := os.WriteFile(table, good, 0o600); err != nil { // repaired while it runs
		t.Fatal(err)
	}
	d.metric(t, "isochrone_geo_fallbacks", "0")
	d.interrupt(t)

	d = startDNS(t, world, t.TempDir(), "--etcd", world.Etcd, "--geoip", table) // no copy of a database
	d.leads(t, "singapore", "sin1")
	d.says(t, `used instead"="the built-in database"`)
	d.interrupt(t)
}

// TestDNSNodeUpgrade replaces the process by another one while it is asked all the time.
func TestDNSNodeUpgrade(t *testing.T) {
	world := startUp(t, "", "--without", "sin1")
	notified := listenNotify(t)
	dir, config := t.TempDir(), filepath.Join(t.TempDir(), "dns.yaml")
	if err := os.WriteFile(config, []byte("workers: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDNS(t, world, dir, "--etcd", world.Etcd, "--config", config)
	d.isReady(t, 200, `"in force"`)
	d.leads(t, "singapore", "nrt1")
	l := startLoad(t, 2*time.Millisecond, func() error { // a successor does not bring the dead back to life
		if pop, err := d.pop(sendPlaces["singapore"]); err != nil || pop == "sin1" {
			return fmt.Errorf("sent to %s, %v", pop, err)
		}
		return nil
	})
	l.more(t)
	notified.until(t, "READY=1")

	// A successor that fails leaves all as it is.
	if err := os.WriteFile(config, []byte("workers: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGUSR2)
	d.says(t, "the upgrade has failed, this process goes on")
	l.more(t)
	if err := os.WriteFile(config, []byte("workers: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	pid := d.command.Process.Pid
	for range 3 {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		before := pid
		eventually(t, "a successor to serve", func() error {
			all := servesLine.FindAllStringSubmatch(d.output.String(), -1)
			if pid, _ = strconv.Atoi(all[len(all)-1][2]); pid == before {
				return errors.New("none yet")
			}
			return nil
		})
		t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
		notified.until(t, fmt.Sprintf("MAINPID=%d", pid))
		eventually(t, "the predecessor to end", func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", before))
			if err == nil && !strings.Contains(string(stat), ") Z ") {
				return errors.New("it runs")
			}
			return nil
		})
		l.more(t)
	}
	d.leads(t, "tokyo", "nrt1")
	if said := mustFail(t, "dns", "--dir", dir, "--listen", "127.0.0.1:0", "--http", ""); !strings.Contains(said, "in use by another isochrone") {
		t.Errorf("a second one in the folder of the successor says %s", said)
	}
	l.end(t)
	d.isReady(t, 200, `"in force"`)
	syscall.Kill(pid, syscall.SIGTERM)
	<-d.ended
}

// notified is what a process has told the service manager.
type notified struct{ *output }

// listenNotify listens as the service manager does; processes that the test starts find it by their environment.
func listenNotify(t *testing.T) notified {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	n, done := notified{&output{}}, make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			size, err := conn.Read(buffer)
			if err != nil {
				return
			}
			fmt.Fprintf(n, "%s\n", buffer[:size])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	t.Setenv("NOTIFY_SOCKET", path)
	return n
}

func (n notified) until(t *testing.T, line string) {
	t.Helper()
	eventually(t, "the service manager to be told "+line, func() error {
		if !strings.Contains("\n"+n.String(), "\n"+line+"\n") {
			return fmt.Errorf("it was told %s", n)
		}
		return nil
	})
}
