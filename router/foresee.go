package router

import "iter"

// Foreseen yields what a service answers to some client while at most one PoP is lost and none has a share: tuples of choices, best
// first, each once. Where PoPs share clients, it leaves out other orders than that of the class, unless one PoP is the whole answer.
// The slice is valid until the next one.
func (t *Table) Foreseen(id ServiceID, f Family) iter.Seq[[]Choice] {
	service := &t.services[id]
	want := service.Steering.Answers
	if f == Either {
		want = httpsAnswers
	}
	return func(yield func([]Choice) bool) {
		seen := map[[MaxAnswers + 1]Choice]bool{}
		fresh := func(choices []Choice) bool {
			key := [MaxAnswers + 1]Choice{MaxAnswers: Choice(len(choices))}
			copy(key[:], choices)
			known := seen[key]
			seen[key] = true
			return !known
		}
		for _, r := range []*ranking{service.rankings[f], service.canary[f]} {
			if r == nil {
				continue
			}
			for i := range r.classes {
				for choices := range r.classes[i].foreseen(want) {
					if fresh(choices) && !yield(choices) {
						return
					}
				}
			}
		}
	}
}

// foreseen yields what clients of a class get.
func (k *class) foreseen(want int) iter.Seq[[]Choice] {
	return func(yield func([]Choice) bool) {
		if want == 1 { // any of the first group may be drawn, and any of the next one when the first has one member, which is lost
			end := k.groupEnd(0)
			if end == 1 && k.n > 1 {
				end = k.groupEnd(1)
			}
			for i := range end {
				if !yield(k.first[i : i+1]) {
					return
				}
			}
			return
		}
		for lost := -1; lost < min(want, int(k.n)); lost++ {
			choices := make([]Choice, 0, MaxAnswers)
			for i := 0; i < int(k.n) && len(choices) < want; i++ {
				if i != lost {
					choices = append(choices, k.first[i])
				}
			}
			if len(choices) > 0 && !yield(choices) {
				return
			}
		}
	}
}
