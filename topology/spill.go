package topology

// Spill says whether, and when, a part of the clients of a full PoP is sent to the next ones. Shares are made for all services together: of what
// several say, the most careful counts. Zero values stand for the defaults.
type Spill struct {
	Off     bool    `yaml:"off,omitempty" json:"off,omitempty"`           // clients of the service are never sent elsewhere because a PoP is full
	Fill    float64 `yaml:"fill,omitempty" json:"fill,omitempty"`         // part of its capacity that a PoP is given, in (0, 1]; default 0.95
	Return  float64 `yaml:"return,omitempty" json:"return,omitempty"`     // part of its capacity up to which clients return, in (0, fill]; default 0.85
	Gain    float64 `yaml:"gain,omitempty" json:"gain,omitempty"`         // part of the mean round-trip time that is worth a change, in (0, 1]; default 0.02
	MaxMove float64 `yaml:"max_move,omitempty" json:"max_move,omitempty"` // part of the requests that one plan moves while nobody has too much, in (0, 1]; default 0.02
}

// What spill is where nothing else is said.
const (
	DefaultFill    = 0.95
	DefaultReturn  = 0.85
	DefaultGain    = 0.02
	DefaultMaxMove = 0.02
)

// SpillOf returns how shares are made for services, and false when all of those are off. What is not said is filled in.
func SpillOf(services map[string]*Service) (s Spill, on bool) {
	s = Spill{Fill: 1, Return: 1, MaxMove: 1}
	for _, service := range services {
		one := Spill{}
		if service.Steering.Spill != nil {
			one = *service.Steering.Spill
		}
		if one.Off {
			continue
		}
		on = true
		one = one.filled()
		s.Fill, s.Return = min(s.Fill, one.Fill), min(s.Return, one.Return)
		s.Gain, s.MaxMove = max(s.Gain, one.Gain), min(s.MaxMove, one.MaxMove)
	}
	return s, on
}

// filled returns the defaults where nothing is said. Return is at most Fill.
func (s Spill) filled() Spill {
	or := func(value *float64, usual float64) {
		if *value == 0 {
			*value = usual
		}
	}
	or(&s.Fill, DefaultFill)
	or(&s.Return, min(DefaultReturn, s.Fill))
	or(&s.Gain, DefaultGain)
	or(&s.MaxMove, DefaultMaxMove)
	return s
}

func (c *checker) spill(field string, s *Spill) {
	for _, one := range []struct {
		name  string
		value float64
	}{{".fill", s.Fill}, {".return", s.Return}, {".gain", s.Gain}, {".max_move", s.MaxMove}} {
		if !(one.value >= 0 && one.value <= 1) {
			c.fault(field+one.name, "%v is not in 0..1 (0 stands for the default)", one.value)
		}
	}
	if filled := s.filled(); filled.Return > filled.Fill {
		c.fault(field+".return", "%v is more than fill, %v: clients would return to a PoP that has no room for them", s.Return, filled.Fill)
	}
}
