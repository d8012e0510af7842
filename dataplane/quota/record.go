package quota

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxPoPs bounds the PoPs that a record names.
const maxPoPs = 256

// record is what has been granted of a key's quota in a window. As text it is the sum and the PoPs, each behind a minus sign if it took a
// grant in the window before and none in this one: "120 sin1 fra1 -nrt1".
type record struct {
	sum  int64
	pops []string
}

func parseRecord(text string) (*record, error) {
	fields := strings.Split(text, " ")
	sum, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || sum < 0 || len(fields) > maxPoPs+1 {
		return nil, fmt.Errorf("%.40q is no record of grants: want a sum and up to %d PoPs, such as \"120 sin1 -fra1\"", text, maxPoPs)
	}
	return &record{sum, fields[1:]}, nil
}

func (r *record) String() string {
	return strings.Join(append([]string{strconv.FormatInt(r.sum, 10)}, r.pops...), " ")
}

// after returns the first record of a window, given that of the window before, which may be nil.
func after(before *record) *record {
	r := &record{}
	if before != nil {
		for _, pop := range before.pops {
			if !strings.HasPrefix(pop, "-") {
				r.pops = append(r.pops, "-"+pop)
			}
		}
	}
	return r
}

// take grants a PoP up to want of what is left of a limit, and at most half of its equal share in that.
func (r *record) take(pop string, limit, want int64) Granted {
	if i := slices.Index(r.pops, "-"+pop); i >= 0 {
		r.pops[i] = pop
	} else if !slices.Contains(r.pops, pop) && len(r.pops) < maxPoPs {
		r.pops = append(r.pops, pop)
	}
	left := max(0, limit-r.sum)
	granted := min(want, left, max(1, left/int64(2*len(r.pops))))
	r.sum += granted
	return Granted{Granted: granted, Remaining: left - granted, PoPs: len(r.pops)}
}
