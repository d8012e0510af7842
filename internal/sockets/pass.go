package sockets

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Pass starts a program with the arguments and the environment of this process, and passes it all sockets and some files, by
// name. The files stay the caller's.
func (p *Pool) Pass(path string, files map[string]*os.File) (*os.Process, error) {
	passed := []uintptr{0, 1, 2}
	var entries []string
	add := func(name string, fd uintptr) {
		entries = append(entries, fmt.Sprintf("%s=%d", name, len(passed)))
		passed = append(passed, fd)
	}
	for name, file := range files {
		add(name, file.Fd())
	}
	for _, fd := range p.kept {
		add(socketName, uintptr(fd))
	}
	// os.StartProcess would call Fd of each socket's file, which makes it blocking for this process too.
	pid, _, err := syscall.StartProcess(path, os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), variable+"="+strings.Join(entries, " ")), Files: passed,
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return os.FindProcess(pid)
}
