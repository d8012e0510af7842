//go:build race

package flow

// raced says that the race detector is on, which makes this package twenty times slower: then one short run on each policy has to do.
const raced = true
