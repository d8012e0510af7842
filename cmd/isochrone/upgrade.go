package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/systemd"
)

// Names of the files that a process passes to its successor, beside the sockets.
const (
	lockName     = "lock"     // of the state folder: it is held while one of both lives
	readyName    = "ready"    // a pipe on which the successor says that it serves
	verdictsName = "verdicts" // what is known of the PoPs, so that none comes back to life
)

// readyWord is what the successor says.
const readyWord = "ready\n"

// upgradeTimeout is how long a successor may take until it serves.
const upgradeTimeout = 30 * time.Second

// programPath is the file that was started, which may be another program by now.
func programPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// upgrade starts the program that is installed now as the successor of this process, with all sockets, and returns when it
// serves. A successor that fails, is late, or is not wanted any more when ctx ends, is ended.
func (d *dnsNode) upgrade(ctx context.Context) error {
	path, err := programPath()
	if err != nil {
		return err
	}
	verdicts, err := d.verdictsFile()
	if err != nil {
		return fmt.Errorf("pass the verdicts on: %w", err)
	}
	defer verdicts.Close()
	said, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	successor, err := d.pool.Pass(path, map[string]*os.File{lockName: d.lock, readyName: say, verdictsName: verdicts})
	say.Close()
	if err != nil {
		return err
	}
	d.log.Info("a successor has been started", "program", path, "process", successor.Pid)
	said.SetReadDeadline(time.Now().Add(upgradeTimeout))
	defer context.AfterFunc(ctx, func() { said.SetReadDeadline(time.Unix(1, 0)) })()
	word, err := io.ReadAll(io.LimitReader(said, int64(len(readyWord))))
	if err == nil && string(word) == readyWord && ctx.Err() == nil {
		systemd.Notify(fmt.Sprintf("MAINPID=%d", successor.Pid), "READY=1")
		successor.Release()
		return nil
	}
	successor.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(upgradeTimeout, func() { successor.Kill() })
	state, waitErr := successor.Wait()
	kill.Stop()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the successor did not serve within %v: see what it has logged", upgradeTimeout)
	case err != nil || waitErr != nil:
		return errors.Join(err, waitErr)
	}
	return fmt.Errorf("the successor ended before it served (%v): see what it has logged", state)
}

// tellPredecessor says that questions are answered here, with a view.
func (d *dnsNode) tellPredecessor() {
	say := d.pool.File(readyName)
	if say == nil || d.sources.live.View() == nil {
		return
	}
	defer say.Close()
	if _, err := say.WriteString(readyWord); err != nil {
		d.log.Warn("the predecessor has ended by itself", "error", err)
	}
}

// passedVerdict is a verdict as it is passed to a successor.
type passedVerdict struct {
	health.Target
	health.Verdict
}

// passed lists verdicts to be passed.
func passed(verdicts health.Verdicts) []passedVerdict {
	list := []passedVerdict{}
	for target, verdict := range verdicts {
		list = append(list, passedVerdict{target, verdict})
	}
	return list
}

// verdictsFile returns a file without a name that has the present verdicts.
func (d *dnsNode) verdictsFile() (*os.File, error) {
	file, err := os.CreateTemp(d.node.dir.path(dnsFolder), "verdicts-")
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.Remove(file.Name()), json.NewEncoder(file).Encode(passed(d.node.Verdicts())))
	if _, seekErr := file.Seek(0, io.SeekStart); err == nil {
		err = seekErr
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// inherited returns the verdicts of the predecessor.
func (d *dnsNode) inherited() health.Verdicts {
	file := d.pool.File(verdictsName)
	if file == nil {
		return nil
	}
	defer file.Close()
	var passed []passedVerdict
	if err := json.NewDecoder(file).Decode(&passed); err != nil {
		d.log.Warn("the predecessor's verdicts cannot be read: all PoPs count as well until they are probed", "error", err)
		return nil
	}
	verdicts := health.Verdicts{}
	for _, p := range passed {
		verdicts[p.Target] = p.Verdict
	}
	return verdicts
}
