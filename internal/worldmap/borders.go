package worldmap

import (
	"math"
	"strconv"
)

// Borders returns the borders of all countries but the Antarctic as JSON, for those who draw the world themselves: a list of
// outlines, each a list of longitudes and latitudes in turn, in tenths of a degree; each pair but the first is the difference to
// the one before. Longitudes go on over the date line, so that an outline may reach beyond 180.
func Borders() []byte {
	text := []byte{'['}
	for _, o := range outlines() {
		if o.country == "AQ" {
			continue
		}
		if len(text) > 1 {
			text = append(text, ",\n"...)
		}
		text = append(text, '[')
		var last [2]int64
		for i, corner := range o.corners {
			for axis, degrees := range corner {
				if i > 0 || axis > 0 {
					text = append(text, ',')
				}
				tenths := int64(math.Round(degrees * 10))
				text = strconv.AppendInt(text, tenths-last[axis], 10)
				last[axis] = tenths
			}
		}
		text = append(text, ']')
	}
	return append(text, "]\n"...)
}
