package router

import "iter"

// Foreseen yields what a service answers to some client while at most one PoP is lost and none has a share: tuples of choices, best
// first, each once. It leaves out the orders in which several PoPs of one group may come. The slice is valid until the next one.
func (t *Table) Foreseen(id ServiceID, f Family) iter.Seq[[]Choice] {
	service := &t.services[id]
	want := service.Steering.Answers
	if f == Either {
		want = httpsAnswers
	}
	return func(yield func([]Choice) bool) {
		seen := map[[MaxAnswers]Choice]bool{}
		for _, r := range []*ranking{service.rankings[f], service.canary[f]} {
			if r == nil {
				continue
			}
			for i := range r.classes {
				if !r.classes[i].foreseen(want, seen, yield) {
					return
				}
			}
		}
	}
}

// foreseen yields what clients of a class get, unless it has been seen.
func (k *class) foreseen(want int, seen map[[MaxAnswers]Choice]bool, yield func([]Choice) bool) bool {
	choices := make([]Choice, 0, MaxAnswers)
	one := func(lost int) bool {
		choices = choices[:0]
		for i := 0; i < int(k.n) && len(choices) < want; i++ {
			if i != lost {
				choices = append(choices, k.first[i])
			}
		}
		key := [MaxAnswers]Choice{noChoice, noChoice, noChoice, noChoice}
		copy(key[:], choices)
		if len(choices) == 0 || seen[key] {
			return true
		}
		seen[key] = true
		return yield(choices)
	}
	if want == 1 { // any member of a group may be drawn, and of the next one when the first has one member, which is lost
		end := k.groupEnd(0)
		if end == 1 && k.n > 1 {
			end = k.groupEnd(1)
		}
		for i := range end {
			choices = append(choices[:0], k.first[i])
			key := [MaxAnswers]Choice{k.first[i], noChoice, noChoice, noChoice}
			if !seen[key] {
				seen[key] = true
				if !yield(choices) {
					return false
				}
			}
		}
		return true
	}
	for lost := -1; lost < min(want, int(k.n)); lost++ {
		if !one(lost) {
			return false
		}
	}
	return true
}
