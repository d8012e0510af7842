package quota

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxPoPs bounds the PoPs that a record names.
const maxPoPs = 256

// record is what has been granted of a key's quota in a window. As text it is the sum, and behind it each PoP with what it took in this
// window and in the one before: "120 sin1=100/250 fra1=20/0".
type record struct {
	sum  int64
	pops []taker
}

// taker is a PoP that is active for a key.
type taker struct {
	pop         string
	now, before int64
}

func parseRecord(text string) (*record, error) {
	fail := fmt.Errorf("%.40q is no record of grants: want a sum and up to %d PoPs, such as \"120 sin1=100/250 fra1=20/0\"", text, maxPoPs)
	fields := strings.Split(text, " ")
	sum, ok := amount(fields[0])
	if !ok || len(fields) > maxPoPs+1 {
		return nil, fail
	}
	r := &record{sum: sum}
	for _, field := range fields[1:] {
		pop, amounts, _ := strings.Cut(field, "=")
		now, before, _ := strings.Cut(amounts, "/")
		t, good, also := taker{pop: pop}, false, false
		t.now, good = amount(now)
		t.before, also = amount(before)
		if pop == "" || !good || !also {
			return nil, fail
		}
		r.pops = append(r.pops, t)
	}
	return r, nil
}

func amount(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && n < maxWant
}

func (r *record) String() string {
	b := strconv.AppendInt(nil, r.sum, 10)
	for _, t := range r.pops {
		b = fmt.Appendf(b, " %s=%d/%d", t.pop, t.now, t.before)
	}
	return string(b)
}

// after returns the first record of a window, given that of the window before, which may be nil.
func after(before *record) *record {
	r := &record{}
	if before != nil {
		for _, t := range before.pops {
			if t.now > 0 {
				r.pops = append(r.pops, taker{pop: t.pop, before: t.now})
			}
		}
	}
	return r
}

// take grants a PoP up to want of what is left of a limit, and at most half of its share in that: which is an equal one of the active PoPs,
// or its part of all that was granted in this window and the one before, if that is more.
func (r *record) take(pop string, limit, want int64) Granted {
	at := slices.IndexFunc(r.pops, func(t taker) bool { return t.pop == pop })
	if at < 0 && len(r.pops) < maxPoPs {
		at, r.pops = len(r.pops), append(r.pops, taker{pop: pop})
	}
	left, part := max(0, limit-r.sum), 1/float64(len(r.pops))
	if at >= 0 {
		all := r.sum
		for _, t := range r.pops {
			all += t.before
		}
		part = max(part, float64(r.pops[at].now+r.pops[at].before)/float64(max(all, 1)))
	}
	granted := min(want, left, max(1, int64(float64(left)*min(part, 1)/2)))
	r.sum += granted
	if at >= 0 {
		r.pops[at].now += granted
	}
	return Granted{Granted: granted, Remaining: left - granted, PoPs: len(r.pops)}
}
