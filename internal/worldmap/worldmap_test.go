package worldmap

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func TestLandIsWhereItIs(t *testing.T) {
	cells := Land(1)
	at := map[[2]int]string{}
	perCountry := map[string]int{}
	for _, c := range cells {
		at[[2]int{int(c.LatDeg), int(c.LonDeg)}] = c.Country
		perCountry[c.Country]++
	}
	for _, test := range []struct {
		lat, lon int
		want     string
	}{{48, 2, "FR"}, {40, -100, "US"}, {-25, 134, "AU"}, {60, 100, "RU"}, {-10, -55, "BR"}, {0, -30, ""}, {30, -160, ""}, {67, -178, "RU"}} {
		if got := at[[2]int{test.lat, test.lon}]; got != test.want {
			t.Errorf("at %d, %d: got %q, want %q", test.lat, test.lon, got, test.want)
		}
	}
	if perCountry["AQ"] > 0 || len(cells) < 12_000 || len(cells) > 20_000 {
		t.Errorf("%d cells, %d of them in the Antarctic", len(cells), perCountry["AQ"])
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	cells := Land(5)
	p := Picture{Title: "a <title> & more", Step: 5, Cells: cells, Colour: make([]int, len(cells)), Legend: []Entry{{"#abc", "<10 ms"}}, Marks: []Mark{{1, 2, "x&y", false}, {3, 4, "z", true}}}
	var out strings.Builder
	if err := p.SVG(&out); err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(strings.NewReader(out.String())); ; {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(out.String(), "a &lt;title&gt; &amp; more") {
		t.Error("the title is missing")
	}
}
