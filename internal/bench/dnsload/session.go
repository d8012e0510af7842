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

// cpuOf returns the CPU time of all threads of a session's processes that run on the servers' core, except the hog. What a
// server needs beside itself, such as its database, runs on the other core and does not count. Ended threads are left out;
// the servers compared here have a fixed number of them. The kernel brings the time of a thread that runs just now up to date
// only at its ticks, so that this is exact only while the server sleeps.
func cpuOf(session int) (time.Duration, error) {
	processes, err := processesOf(session)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, process := range processes {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", process))
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				continue // has ended
			}
			ran, err := firstNumber(text)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", thread, err)
			}
			sum += ran
		}
	}
	return sum, nil
}

// processesOf returns the session's processes on the servers' core.
func processesOf(session int) ([]int, error) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var processes []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		p, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if p.session == session && p.core == serverCore && p.command != hogCommand {
			processes = append(processes, p.id)
		}
	}
	if len(processes) == 0 {
		return nil, fmt.Errorf("session %d has no process on core %d: its server has ended", session, serverCore)
	}
	return processes, nil
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

// coreBusy returns the time that tasks have run on the servers' core, whoever they belong to (the seventh field of its line
// in /proc/schedstat).
func coreBusy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/schedstat")
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 7 && fields[0] == fmt.Sprintf("cpu%d", serverCore) {
			ran, err := strconv.ParseInt(fields[7], 10, 64)
			return time.Duration(ran), err
		}
	}
	return 0, fmt.Errorf("/proc/schedstat has no line of cpu%d", serverCore)
}

func firstNumber(text []byte) (time.Duration, error) {
	first, _, _ := strings.Cut(string(text), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns), err
}
