package router

import (
	"cmp"
	"slices"
)

// Leading are the first three PoPs of a class of clients, in their order; where there are fewer, the rest is empty. Spill is by them: clients who
// have them in common are so near to each other that it matters little which of them are sent elsewhere.
type Leading [3]string

// Compare orders by the first name, then by the second and the third.
func (l Leading) Compare(o Leading) int { return slices.CompareFunc(l[:], o[:], cmp.Compare[string]) }

// Spill is what share PoPs take of clients, by the clients' first choices and the PoP's name, in 0..1. Who is not named takes all. Who is not taken
// by any PoP is sent to the first. Spill must not be changed once a state is made of it.
type Spill map[Leading]map[string]float64
