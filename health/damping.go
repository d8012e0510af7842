package health

import (
	"cmp"
	"math"
	"time"
)

// Damping is an exponential penalty for targets that come and go (RFC 2439 section 4.2). The zero value stands for the defaults.
type Damping struct {
	HalfLife time.Duration // default 60 s
	Fall     float64       // the penalty of going down; default 1000
	Suppress float64       // above it a target is held to be down; default 3000
	Reuse    float64       // below it, no more; default 1000
	Longest  time.Duration // of suppression after the last fall; default 10 min
	Off      bool
}

func (d Damping) withDefaults() Damping {
	d.HalfLife, d.Longest = cmp.Or(d.HalfLife, time.Minute), cmp.Or(d.Longest, 10*time.Minute)
	d.Fall, d.Suppress, d.Reuse = cmp.Or(d.Fall, 1000), cmp.Or(d.Suppress, 3000), cmp.Or(d.Reuse, 1000)
	return d
}

// flaps is the penalty of one target.
type flaps struct {
	penalty float64   // as of at
	at      time.Time // of the last fall
	falls   int       // that the penalty stands for
	since   time.Time // the fall since which it was never said to be up
	until   time.Time // end of the suppression; zero when there was none
}

// fall adds the penalty of going down.
func (f *flaps) fall(d Damping, now time.Time) {
	if d.Off {
		return
	}
	f.penalty *= math.Exp2(-now.Sub(f.at).Seconds() / d.HalfLife.Seconds())
	if f.penalty < d.Reuse/2 { // the usual end of a history (RFC 2439 section 4.8.7)
		f.penalty, f.falls = 0, 0
	}
	if !now.Before(f.until) {
		f.since = now
	}
	f.penalty, f.at, f.falls = f.penalty+d.Fall, now, f.falls+1
	if f.penalty > d.Suppress || now.Before(f.until) {
		wait := d.HalfLife.Seconds() * math.Log2(f.penalty/d.Reuse)
		f.until = now.Add(min(time.Duration(wait*float64(time.Second)), d.Longest))
	}
}
