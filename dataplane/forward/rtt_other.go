//go:build !linux

package forward

import "time"

// rtt returns 0: the kernel is not asked.
func (c *conn) rtt() time.Duration { return 0 }
