package topology

import "testing"

func TestSpillOfSeveralServices(t *testing.T) {
	service := func(s *Spill) *Service { return &Service{Steering: Steering{Spill: s}} }
	usual := Spill{Fill: DefaultFill, Return: DefaultReturn, Gain: DefaultGain, MaxMove: DefaultMaxMove}
	for name, test := range map[string]struct {
		services []*Spill
		want     Spill
		on       bool
	}{
		"nothing said":      {[]*Spill{nil}, usual, true},
		"one of two is off": {[]*Spill{{Off: true, Fill: 0.1}, nil}, usual, true},
		"all are off":       {[]*Spill{{Off: true}, {Off: true}}, Spill{}, false},
		"the most careful": {
			[]*Spill{{Fill: 0.9, MaxMove: 0.5}, {Return: 0.5, Gain: 0.1, MaxMove: 0.3}}, Spill{Fill: 0.9, Return: 0.5, Gain: 0.1, MaxMove: 0.3}, true,
		},
		"a low fill": {[]*Spill{{Fill: 0.6}}, Spill{Fill: 0.6, Return: 0.6, Gain: DefaultGain, MaxMove: DefaultMaxMove}, true},
	} {
		services := map[string]*Service{}
		for i, s := range test.services {
			services[string(rune('a'+i))] = service(s)
		}
		if got, on := SpillOf(services); on != test.on || on && got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v, %v", name, got, on, test.want, test.on)
		}
	}
}
