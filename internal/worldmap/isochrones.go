package worldmap

import (
	"fmt"
	"slices"
)

// The ends of the bands that lie between isochrones, in milliseconds, and their colours, from near to far.
var (
	bandEnds    = []float64{10, 20, 30, 50, 75, 100, 150, 200}
	bandColours = []string{"#1a6e3c", "#41a35a", "#86c76c", "#cfe38a", "#fbe07a", "#f6b153", "#e8743c", "#c2402f", "#7d1d2b"}
)

// Bands is the legend of a map of round-trip times: what lies between one isochrone and the next, from near to far.
func Bands() []Entry {
	legend, from := make([]Entry, 0, len(bandColours)), 0.0
	for i, colour := range bandColours {
		if i == len(bandEnds) {
			return append(legend, Entry{colour, fmt.Sprintf("%.0f ms and more", from)})
		}
		legend, from = append(legend, Entry{colour, fmt.Sprintf("%.0f-%.0f ms", from, bandEnds[i])}), bandEnds[i]
	}
	return legend
}

// Band returns the number of the band in which a round-trip time in milliseconds lies.
func Band(ms float64) int {
	i, on := slices.BinarySearch(bandEnds, ms)
	if on {
		i++
	}
	return i
}
