package virtual_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/virtual"
)

func TestAnHourPassesAtOnce(t *testing.T) {
	var passed time.Duration
	err := virtual.Run(func() error {
		start := time.Now()
		if want := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); !start.Equal(want) {
			t.Errorf("the clock starts at %v, want %v", start, want)
		}
		<-time.After(time.Hour)
		passed = time.Since(start)
		return nil
	})
	if err != nil || passed != time.Hour {
		t.Errorf("got %v and %v", passed, err)
	}
}

func TestErrors(t *testing.T) {
	mine := errors.New("mine")
	for _, test := range []struct {
		name string
		f    func() error
		want string
	}{
		{"returned", func() error { return mine }, "mine"},
		{"panic", func() error { panic("oh") }, "panic: oh"},
		{"stuck", func() error { <-make(chan int); return nil }, "deadlock"},
		{"left behind", func() error { go func() { <-make(chan int) }(); return nil }, "deadlock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := virtual.Run(test.f); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
	if err := virtual.Run(func() error { return nil }); err != nil {
		t.Errorf("after failures: %v", err)
	}
}

func TestAtTheSameTime(t *testing.T) {
	results := make(chan error)
	for range 4 {
		go func() { results <- virtual.Run(func() error { <-time.After(time.Hour); return nil }) }()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
