// Package virtual runs code in virtual time: clocks and timers stand still while any goroutine works, and jump when all wait.
// Hours of a simulated world pass in seconds, and times come out equal from run to run.
//
// It is the only package that imports testing/synctest, which was made for tests and works in a plain binary with care: code
// inside must not touch the network, and every goroutine that it starts must have ended when it returns. Files are fine; their
// input and output takes no virtual time. The clock starts at midnight UTC of 2000-01-01.
package virtual

import (
	"errors"
	"fmt"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

// Run calls f in virtual time of its own and returns its error. A panic of f, and a goroutine that can never end, become
// errors. Runs may be nested in tests, and may run at the same time, but not one inside another.
func Run(f func() error) (err error) {
	finished := false
	defer func() {
		if p := recover(); p != nil { // synctest found goroutines that wait for each other, or left behind
			err = fmt.Errorf("virtual time: %v", p)
		} else if !finished && err == nil {
			err = errors.New("virtual time: the work ended its goroutine")
		}
	}()
	synctest.Test(new(testing.T), func(*testing.T) { // this T is never touched: it cannot report anything outside a test
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		err = f()
		finished = true
	})
	return err
}

// Settle waits until all other goroutines of the run wait for something: for each other, or for a later time. What the present moment causes has
// been caused then. One goroutine may call it at a time, inside Run alone.
func Settle() { synctest.Wait() }
