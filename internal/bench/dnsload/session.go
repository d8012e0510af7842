package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// serverCore is the core that all servers of a mixed comparison are pinned to.
const serverCore = 0

// usage is the CPU time of each process of the machine so far. Ended threads are left out; the servers compared here have a
// fixed number of them. The kernel brings the time of a thread that runs just now up to date only at its ticks, so that a
// server's is exact only while it sleeps. (/proc/schedstat, which has a sum for each core, is not in every kernel.)
type usage map[int]used // by process id

type used struct {
	process
	cpu time.Duration
}

func readUsage() (usage, error) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	u := make(usage, len(stats))
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		p, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		var sum time.Duration
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", p.id))
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				continue
			}
			ran, err := firstNumber(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", thread, err)
			}
			sum += ran
		}
		u[p.id] = used{p, sum}
	}
	return u, nil
}

// since returns what has been used since before, by processes of the session itself, of the other sessions given, and of
// everybody else but this process and hogs. A session's process on another core than the servers', such as its database, is
// somebody else.
func (u usage) since(before usage, session int, sessions map[int]bool) (own, idle, others time.Duration) {
	self := os.Getpid()
	for id, p := range u {
		used := max(0, p.cpu-before[id].cpu)
		switch {
		case id == self || p.command == hogCommand:
		case p.core != serverCore || !sessions[p.session]:
			others += used
		case p.session == session:
			own += used
		default:
			idle += used
		}
	}
	return own, idle, others
}

// serves reports whether a session has a process on the servers' core.
func (u usage) serves(session int) bool {
	for _, p := range u {
		if p.session == session && p.core == serverCore && p.command != hogCommand {
			return true
		}
	}
	return false
}

type process struct {
	id, session, core int
	command           string
}

// parseStat reads /proc/PID/stat, see proc(5). The command may hold spaces and parentheses.
func parseStat(text []byte) (process, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("%q has no command", text)
	}
	fields := strings.Fields(string(text[end+1:])) // from the third on
	if len(fields) < 37 {
		return process{}, fmt.Errorf("%q has too few fields", text)
	}
	p := process{command: string(text[open+1 : end])}
	var err error
	for _, number := range []struct {
		to   *int
		text string
	}{{&p.id, strings.TrimSpace(string(text[:open]))}, {&p.session, fields[6-3]}, {&p.core, fields[39-3]}} {
		if *number.to, err = strconv.Atoi(number.text); err != nil {
			return process{}, err
		}
	}
	return p, nil
}

func firstNumber(text []byte) (time.Duration, error) {
	first, _, _ := strings.Cut(string(text), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns), err
}
