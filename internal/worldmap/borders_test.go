package worldmap

import (
	"encoding/json"
	"testing"
)

// TestBorders reads what Borders writes, as those who draw it do, and looks for Singapore's neighbour in it.
func TestBorders(t *testing.T) {
	var read [][]int
	if err := json.Unmarshal(Borders(), &read); err != nil {
		t.Fatal(err)
	}
	found, at := 0, 0
	for _, o := range outlines() {
		if o.country == "AQ" {
			continue
		}
		if at >= len(read) || len(read[at]) != 2*len(o.corners) {
			t.Fatalf("outline %d of %s has not %d corners", at, o.country, len(o.corners))
		}
		var lon, lat int
		for i, corner := range o.corners {
			lon, lat = lon+read[at][2*i], lat+read[at][2*i+1]
			if got := [2]float64{float64(lon) / 10, float64(lat) / 10}; got != corner {
				t.Fatalf("corner %d of %s: got %v, want %v", i, o.country, got, corner)
			}
		}
		if o.holds(102.5, 3.5) && o.country == "MY" {
			found++
		}
		at++
	}
	if found != 1 || at != len(read) {
		t.Errorf("Malaysia is there %d times, and of %d outlines %d were read", found, len(read), at)
	}
}
