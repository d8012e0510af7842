package spill

import (
	"math"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	type step struct {
		load   Load
		passed time.Duration
		want   float64
	}
	full := Load{RequestsRPS: 400, ShedRPS: 100, CapacityRPS: 300}
	calm := Load{RequestsRPS: 100, CapacityRPS: 300}
	for name, test := range map[string]struct {
		stated float64
		steps  []step
	}{
		"nothing known":                     {0, []step{{Load{RequestsRPS: 1000}, 0, 0}}},
		"what is stated":                    {1000, []step{{Load{RequestsRPS: 900, CPU: 0.5}, 0, 1000}}},
		"it falls at once and rises slowly": {1000, []step{{Load{RequestsRPS: 400}, 0, 1000}, {full, time.Second, 300}, {calm, time.Minute, 315}, {calm, time.Minute, 330.75}, {calm, time.Hour, 1000}, {calm, time.Second, 1000}}},
		"a new leader is careful":           {1000, []step{{calm, 0, 300}, {calm, time.Minute, 315}}},
		"it is shown again":                 {1000, []step{{full, 0, 300}, {calm, time.Hour, 1000}, {full, time.Second, 300}}},
		"processors":                        {1000, []step{{Load{RequestsRPS: 600, CPU: 0.9}, 0, 600}, {Load{RequestsRPS: 300, CPU: 0.4}, time.Minute, 630}}},
		"what was shed costs nothing":       {1000, []step{{Load{RequestsRPS: 900, ShedRPS: 600, CPU: 0.9, CapacityRPS: 310}, 0, 300}}},
		"others use the processors":         {1000, []step{{Load{RequestsRPS: 20, CPU: 1}, 0, 1000}}},
		"it is never held to do nothing":    {1000, []step{{Load{RequestsRPS: 5000, ShedRPS: 4990, CapacityRPS: 10}, 0, 100}}},
		"a queue":                           {1000, []step{{Load{RequestsRPS: 500, QueueDelay: 30 * time.Millisecond}, 0, 450}}},
		"nothing stated":                    {0, []step{{full, 0, 300}, {calm, time.Minute, 315}, {calm, 24 * time.Hour, 0}, {calm, time.Second, 0}, {full, time.Second, 300}}},
	} {
		m := Memory{}
		for i, s := range test.steps {
			if got := m.Take("a", s.load, test.stated, s.passed); math.Abs(got-s.want) > 1e-9*s.want {
				t.Errorf("%s, step %d: got %v, want %v", name, i, got, s.want)
			}
		}
	}
}
