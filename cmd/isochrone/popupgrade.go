package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/dataplane/handover"
	"github.com/isochrone/isochrone/internal/systemd"
)

// Names of what a process of a PoP passes to its successor, beside the sockets and the lock.
const (
	controlName = "control"  // a connection on which the words below are said
	packetsName = "packets/" // a connection for packets of older connections, for each address
)

// What the two processes say to each other, in this order.
const (
	readyPoPWord = "ready"   // successor: it has all but the sockets' packets and the spool
	takeWord     = "take "   // predecessor, with a generation: it reads the sockets no more
	spoolWord    = "spool"   // predecessor: it has closed the spool
	servingWord  = "serving" // successor: it accepts payloads
)

// spoolTimeout is how long a successor waits for the spool: longer than a predecessor waits for requests in flight.
const spoolTimeout = 30 * time.Second

// hear returns the next word of the other process; io.EOF when that has ended.
func hear(c net.Conn, timeout time.Duration) (string, error) {
	buffer := make([]byte, 64)
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	n, err := c.Read(buffer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return string(buffer[:n]), err
}

// awaitTurn tells the predecessor that all is ready, and returns when the sockets are left to this process, with the generation of its
// connection ids. A predecessor that has ended needs nothing any more.
func (p *popProcess) awaitTurn() (generation uint8, err error) {
	if p.before == nil {
		return 0, nil
	}
	if _, err = p.before.Write([]byte(readyPoPWord)); err != nil {
		return 0, fmt.Errorf("the predecessor has ended by itself: %w", err)
	}
	word, err := hear(p.before, upgradeTimeout)
	number, ok := strings.CutPrefix(word, takeWord)
	n, numberErr := strconv.ParseUint(number, 10, 8)
	if err != nil || !ok || numberErr != nil {
		return 0, fmt.Errorf("the predecessor did not leave the sockets: it said %q: %w", word, errors.Join(err, numberErr))
	}
	return uint8(n), nil
}

// awaitSpool returns when the predecessor has closed the spool, or has ended.
func (p *popProcess) awaitSpool() error {
	if p.before == nil {
		return nil
	}
	if word, err := hear(p.before, spoolTimeout); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the predecessor did not leave the spool: %w", err)
	} else if err == nil && word != spoolWord {
		return fmt.Errorf("the predecessor did not leave the spool: it said %q", word)
	}
	return nil
}

// run goes on until ctx ends, a part fails, or a successor has taken over, and then has all parts end.
func (p *popProcess) run(ctx context.Context, upgrade <-chan os.Signal, l *layers) error {
	for {
		select {
		case <-ctx.Done():
			systemd.Notify("STOPPING=1")
			p.pool.Close() // else the system would go on taking connections for us
			return l.stop()
		case err := <-l.failed:
			p.pool.Close()
			return errors.Join(err, l.stop())
		case <-upgrade:
			successor, err := p.startSuccessor(ctx)
			if err != nil {
				p.log.Error("the upgrade has failed, this process goes on", "error", err)
				continue
			}
			return p.handOver(successor, l)
		}
	}
}

// successor is a process that is ready to take over.
type successor struct {
	*os.Process
	control net.Conn
	packets []net.Conn // for each socket
}

func (s *successor) close() {
	for _, c := range append(s.packets, s.control) {
		c.Close()
	}
}

// startSuccessor starts the program that is installed now, and returns when it is ready. One that fails, is late, or is not wanted any
// more when ctx ends, is ended.
func (p *popProcess) startSuccessor(ctx context.Context) (*successor, error) {
	path, err := programPath()
	if err != nil {
		return nil, err
	}
	s := new(successor)
	files := map[string]*os.File{lockName: p.lock}
	pair := func(name string) (net.Conn, error) {
		own, other, err := handover.Pair()
		if err == nil {
			files[name] = other
		}
		return own, err
	}
	defer func() {
		for name, file := range files {
			if name != lockName {
				file.Close()
			}
		}
	}()
	if s.control, err = pair(controlName); err != nil {
		return nil, err
	}
	for _, socket := range p.sockets {
		own, err := pair(packetsName + socket.LocalAddr().String())
		if err != nil {
			s.close()
			return nil, err
		}
		s.packets = append(s.packets, own)
	}
	if s.Process, err = p.pool.Pass(path, files); err != nil {
		s.close()
		return nil, err
	}
	for name, file := range files { // now those of the successor are the only ones, so that its end is heard
		if name != lockName {
			file.Close()
		}
	}
	p.log.Info("a successor has been started", "program", path, "process", s.Pid)
	stop := context.AfterFunc(ctx, func() { s.control.Close() })
	word, err := hear(s.control, upgradeTimeout)
	if stop() && err == nil && word == readyPoPWord {
		return s, nil
	}
	s.close()
	return nil, errors.Join(err, dismiss(s.Process))
}

// dismiss ends a successor that is of no use, and tells how it ended.
func dismiss(process *os.Process) error {
	_ = process.Signal(syscall.SIGTERM) // it may have ended
	kill := time.AfterFunc(upgradeTimeout, func() { _ = process.Kill() })
	defer kill.Stop()
	state, err := process.Wait()
	if err != nil {
		return err
	}
	return fmt.Errorf("the successor did not take over (%v): see what it has logged", state)
}

// handOver leaves the sockets and then the spool to a successor, and returns when the connections of this process have ended.
func (p *popProcess) handOver(s *successor, l *layers) error {
	defer s.control.Close()
	for i, socket := range p.sockets {
		socket.ReceiveFrom(s.packets[i])
	}
	p.front.HandOver()
	p.bgp.hurry() // the router takes the successor's session when ours has ended
	p.pool.Close()
	if p.monitor != nil {
		p.monitor.cancel()
	}
	_, err := s.control.Write([]byte(takeWord + strconv.Itoa(int(p.ids.Next().Own().Generation))))
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop() }()
	<-p.pop.Released()
	if _, spoolErr := s.control.Write([]byte(spoolWord)); err == nil {
		err = spoolErr
	}
	word := ""
	if err == nil {
		word, err = hear(s.control, spoolTimeout)
	}
	if err == nil && word == servingWord {
		systemd.Notify(fmt.Sprintf("MAINPID=%d", s.Pid), "READY=1")
		p.log.Info("the successor serves: this process ends when its connections have", "process", s.Pid)
		err = s.Release()
	} else {
		err = fmt.Errorf("the successor has failed after it had taken over: %w", errors.Join(err, s.Release()))
	}
	return errors.Join(err, <-stopped)
}
