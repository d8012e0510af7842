package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		p := newProgress(&out, "sending", 1000, counted("envelopes"))
		<-time.After(progressAfter - time.Millisecond)
		p.add(250)
		synctest.Wait()
		if got := out.String(); got != "" {
			t.Errorf("after less than a second it shows %q", got)
		}
		<-time.After(time.Millisecond)
		synctest.Wait()
		if got, want := out.String(), "\rsending [######..................]  25 % of 1000 envelopes, 3s left\x1b[K"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		p.add(10_000) // more than was said
		<-time.After(progressEvery)
		synctest.Wait()
		p.end()
		if got, want := out.String(), "\rsending ["+strings.Repeat("#", progressWidth)+"] 100 % of 1000 envelopes, 1s left\x1b[K\r\x1b[K"; !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q at its end", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var out output
		p := newProgress(&out, "writing", 0, octets)
		written, _ := writeProgress{io.Discard, p}.Write(make([]byte, 20<<10))
		read, _ := io.ReadAll(readProgress{bytes.NewReader(make([]byte, 10)), p})
		<-time.After(progressAfter)
		synctest.Wait()
		p.end()
		if got, want := out.String(), "\rwriting: 20 KiB, 1s\x1b[K\r\x1b[K"; got != want || written != 20<<10 || len(read) != 10 {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	if p := startProgress(new(bytes.Buffer), "to a pipe", 1, octets); p != nil {
		t.Error("it is shown where there is no terminal")
	}
	var none *progress
	none.add(1)
	none.end()
}

// TestProgressOnATerminal has a command's standard error be one.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	script := need(t, "script")
	file := t.TempDir() + "/backup"
	for _, command := range []string{
		program + " backup " + file + " --dir " + r.dir, program + " restore " + file + " --replace --dir " + r.dir,
	} { // which are over before a bar is of use
		out, err := exec.CommandContext(t.Context(), script, "-qec", command, "/dev/null").CombinedOutput()
		if err != nil || strings.Contains(string(out), "\x1b[K") || !strings.Contains(string(out), "backed up") && !strings.Contains(string(out), "restored") {
			t.Errorf("%s: %v: %q", command, err, out)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
