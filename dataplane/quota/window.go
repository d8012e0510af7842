//go:build !quotaclock

package quota

import "time"

// Window is how long a window lasts at least.
const Window = time.Minute

const (
	fresh = 3 * time.Second // how long what was heard of the number is held to be news
	sweep = 5 * time.Second // from one look at all accounts to the next
)

// wall is the wall clock, of which only the first number is made.
func wall() time.Time { return time.Now() }
