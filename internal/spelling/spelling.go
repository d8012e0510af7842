// Package spelling finds what a person probably meant by a word that is not known.
package spelling

import (
	"fmt"
	"slices"
	"strings"
)

// Suggest names the known word that was probably meant, or all of them.
func Suggest(word string, known []string) string {
	best, distance := "", len(word)/2+1
	for _, candidate := range known {
		if n := editDistance(word, candidate); n < distance {
			best, distance = candidate, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "known are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// editDistance is the number of letters to insert, delete or replace that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
