//go:build quotaclock

package quota

import (
	"fmt"
	"os"
	"time"
)

// This is for tests of whole programs (cmd/isochrone, TestQuotaOfProcesses): the environment tells how long windows last, so that a test
// meets many of them, and by how much the wall clock is wrong. No program that is installed has it.

// Window is how long a window lasts at least.
var Window = environment("ISOCHRONE_QUOTA_WINDOW", time.Minute)

var (
	fresh = min(3*time.Second, Window/2)
	sweep = min(5*time.Second, Window/8)
	wrong = environment("ISOCHRONE_WALL_OFFSET", 0)
)

func wall() time.Time { return time.Now().Add(wrong) }

func environment(name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	return d
}
