package simulations

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/packet"
)

func TestMeasureMany(t *testing.T) {
	rtts := RTTs{{"node", "sin"}: 180 * time.Millisecond, {"hkg", "sin"}: 37 * time.Millisecond}
	for _, over := range []Transport{QUIC} {
		seen := map[string]int{}
		for range 20 {
			fresh, warm, err := MeasureMany(packet.Config{Seed: 1, Way: func(from, to *packet.Host) (packet.Way, error) {
				w, err := rtts.Way(from, to)
				w.Loss, w.Jitter = 0.02, packet.JitterOf(2*w.Delay)
				return w, err
			}}, Path{"node", "sin", "hkg"}, over, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range [][]time.Duration{fresh, warm} {
				for i := range x {
					x[i] = x[i].Round(100 * time.Microsecond)
				}
			}
			seen[fmt.Sprint(fresh, warm)]++
			t.Log(fresh[60], fresh[73], fresh[84])
			slices.Sort(fresh)
			slices.Sort(warm)
			t.Log(over, fresh[50], fresh[99], warm[50], warm[99])
		}
		t.Log(over, len(seen))
		var all [][]string
		for k := range seen {
			all = append(all, strings.Fields(k))
		}
		for i := range all[0] {
			d := map[string]int{}
			for _, a := range all {
				d[a[i]]++
			}
			if len(d) > 1 {
				t.Log(i, d)
			}
		}
	}
}
