package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// reported has vantages say what words tell: for each vantage, by region, one letter a target: + up, - down, ? unknown, ~ suspected, . nothing.
func reported(targets []Target, words ...string) (reports []*Report, vantages []Vantage) {
	for i, word := range words {
		region, says, _ := strings.Cut(word, ":")
		r := &Report{Vantage: Vantage{Name: fmt.Sprintf("control:%02d", i), Region: region}, Incarnation: 1, Sequence: 1, Full: true}
		for j, c := range says {
			s := Statement{Target: targets[j], Since: second(-60 + i), Seen: second(-i), Took: 50 * time.Millisecond}
			switch c {
			case '.':
				continue
			case '+', '~':
				s.Status, s.Reason, s.Late = Up, "accepted a probe", c == '~'
			case '-':
				s.Status, s.Reason, s.Code, s.Failures = Down, "no answer within 1s", Timeout, 2
			case '?':
				s.Status = Unknown
			}
			r.Statements = append(r.Statements, s)
		}
		reports, vantages = append(reports, r), append(vantages, r.Vantage)
	}
	return reports, vantages
}

func TestJudge(t *testing.T) {
	targets, _ := world(6)
	down := Verdicts{targets[0]: {Status: Down, Since: second(-999)}}
	up := Verdicts{targets[0]: {Status: Up, Since: second(-999)}}
	for _, test := range []struct {
		name     string
		words    []string
		previous Verdicts
		want     Status
		regions  string // of those that have a verdict
		doubted  string
		alone    bool
		missing  int // vantages that are not heard
	}{
		{name: "nobody", want: Unknown},
		{name: "nobody, but known", previous: down, want: Down},
		{name: "one alone in the world", words: []string{":-"}, want: Down},
		{name: "one of several", words: []string{":-"}, previous: up, want: Up, missing: 2},
		{name: "one of several, alone", words: []string{":-+++++"}, previous: up, want: Down, missing: 2, alone: true},
		{name: "one of several, alone, and most is dead", words: []string{":-----+"}, previous: up, want: Down, missing: 2, alone: true},
		{name: "one of several, alone, and all is dead", words: []string{":------"}, previous: up, want: Up, missing: 2, alone: true, doubted: "control:00"},
		{name: "two that agree", words: []string{":-", ":-"}, want: Down},
		{name: "two that do not", words: []string{":-", ":+"}, previous: down, want: Up},
		{name: "majority down", words: []string{":-", ":-", ":+"}, previous: up, want: Down},
		{name: "majority up", words: []string{":-", ":+", ":+"}, previous: down, want: Up},
		{name: "half", words: []string{":-", ":-", ":+", ":+"}, previous: down, want: Up},
		{name: "too many know nothing", words: []string{":-", ":-", ":?", ":?"}, previous: up, want: Up},
		{name: "too many know nothing of one that was down", words: []string{":+", ":?", ":?"}, previous: down, want: Down},
		{name: "regions", words: []string{"EU:+", "EU:+", "EU:+", "AS:-", "AS:-", "AS:+"}, want: Up, regions: "AS:down EU:up"},
		{name: "a region of two", words: []string{"EU:+", "EU:+", "EU:+", "AS:-", "AS:-"}, want: Up, regions: "EU:up"},
		{name: "a vantage without its way", words: []string{"EU:-----+", "EU:-+++++", "EU:++++++", "EU:++++++"}, want: Up, doubted: "control:00", regions: "EU:up"},
		{name: "and only two are left in the region", words: []string{"AS:-----+", "AS:-+++++", "AS:++++++"}, want: Up, doubted: "control:00", regions: "AS:up"},
		{name: "who agree", words: []string{"AS:++++++", "AS:-+++++", "AS:-+++++", "EU:++++++", "EU:++++++"}, want: Up, regions: "AS:down"},
		{name: "one of three is silent", words: []string{"AS:.+++++", "AS:-+++++", "AS:-+++++", "EU:++++++", "EU:++++++"}, want: Up, regions: "AS:down"},
		{name: "two of three are silent", words: []string{"AS:.+++++", "AS:.+++++", "AS:-+++++", "EU:++++++", "EU:++++++"}, want: Up},
		{name: "all agree that most is dead", words: []string{":-----+", ":-----+", ":-----+"}, want: Down},
	} {
		t.Run(test.name, func(t *testing.T) {
			reports, vantages := reported(targets, test.words...)
			for i := range test.missing {
				vantages = append(vantages, Vantage{Name: fmt.Sprint("dns:", i)})
			}
			j := Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: test.previous, Now: epoch, Alone: test.alone})
			v := j.Verdicts[targets[0]]
			regions := []string{}
			for region, r := range v.Regions {
				regions = append(regions, region+":"+string(r.Status))
			}
			slices.Sort(regions)
			doubted := []string{}
			for _, d := range j.Doubted {
				doubted = append(doubted, d.Vantage)
			}
			if v.Status != test.want || strings.Join(regions, " ") != test.regions || strings.Join(doubted, " ") != test.doubted {
				t.Errorf("got %s, regions %v, doubted %v; want %s, %s, %s", v.Status, regions, doubted, test.want, test.regions, test.doubted)
			}
		})
	}
}

func TestVerdictSaysWhy(t *testing.T) {
	targets, _ := world(1)
	reports, vantages := reported(targets, "EU:-", "EU:-", "EU:-", "NA:-", "NA:~", "AS:+", "AS:-")
	reports[1].Statements[0].Code, reports[1].Statements[0].Reason = Refused, "connection refused"
	before := Verdicts{targets[0]: {Status: Up, Since: second(-999)}}
	j := Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: before, Now: epoch})
	v := j.Verdicts[targets[0]]
	if v.Reason != "5 of 7 vantages: no answer within 1s" || v.Code != Timeout || v.Votes != (Votes{2, 5, 7}) || !v.Suspected ||
		!v.Since.Equal(second(-58)) || !v.Seen.Equal(second(0)) || v.LastTook != 50*time.Millisecond {
		t.Errorf("got %+v", v)
	}
	if v.Regions["EU"].Reason != "3 of 3 vantages: no answer within 1s" || v.Regions["EU"].Votes != (Votes{0, 3, 3}) {
		t.Errorf("got %+v", v.Regions["EU"])
	}
	again := Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: j.Verdicts, Now: second(60)})
	if !again.Verdicts.SameStatus(j.Verdicts) || !again.Verdicts[targets[0]].Since.Equal(v.Since) {
		t.Errorf("a minute later: %+v", again.Verdicts[targets[0]])
	}
	if j.Verdicts.SameStatus(before) || j.Verdicts.In(targets[0], "EU") != Down || j.Verdicts.In(targets[0], "OC") != Down || j.Verdicts.In(Target{}, "") != Unknown {
		t.Error("SameStatus or In are wrong")
	}
}

func TestDegraded(t *testing.T) {
	targets, _ := world(1)
	reports, vantages := reported(targets, "EU:+", "EU:+", "EU:+", "NA:-")
	self := &Report{Vantage: Vantage{Name: "pop:p000"}, Incarnation: 1, Sequence: 1, Self: Self{Degraded: "no cluster can be reached"}}
	self.Statements = []Statement{{Target: targets[0], Status: Down}} // nobody judges itself
	in := Inputs{Reports: append(reports, self), Targets: targets, Vantages: vantages, Now: epoch}
	v := Judge(in).Verdicts
	if got := v[targets[0]]; got.Status != Degraded || got.Reason != "4 vantages" && !strings.Contains(got.Reason, "no cluster can be reached") || got.Votes.Of != 4 {
		t.Errorf("got %+v", got)
	}
	if v.In(targets[0], "EU") != Degraded || v.IsDown(targets[0]) {
		t.Errorf("in Europe: %v", v.In(targets[0], "EU"))
	}
	in.Previous, in.Reports = v, reports
	if got := Judge(in).Verdicts[targets[0]]; got.Status != Degraded {
		t.Errorf("when it is not heard any more: %+v", got)
	}
	self.Self.Degraded = ""
	in.Reports = append(reports, self)
	if got := Judge(in).Verdicts[targets[0]]; got.Status != Up {
		t.Errorf("when it is well: %+v", got)
	}
	self.Self.Degraded = "no cluster can be reached"
	for _, r := range reports[1:] {
		r.Statements[0].Status = Down
	}
	if got := Judge(in).Verdicts[targets[0]]; got.Status != Down {
		t.Errorf("when it is dead: %+v", got)
	}
}

// TestHosted has the process of several PoPs speak for one of them, and others who may not.
func TestHosted(t *testing.T) {
	targets, _ := world(1)
	reports, vantages := reported(targets, ":+", ":+", ":+")
	of := func(name string, hosts ...Hosted) *Report {
		return &Report{Vantage: Vantage{Name: name}, Incarnation: 1, Sequence: 1, Hosts: hosts}
	}
	bad, well := Hosted{PoP: "p000", Degraded: "no cluster can be reached", Shedding: true}, Hosted{PoP: "p000"}
	for _, test := range []struct {
		name  string
		heard []*Report
		want  Status
	}{
		{"its process", []*Report{of("up:a", bad)}, Degraded},
		{"its process says that it is well", []*Report{of("up:a", well)}, Up},
		{"another PoP", []*Report{of("pop:p001", bad)}, Up},
		{"a DNS node", []*Report{of("dns:a", bad)}, Up},
		{"itself, who knows better", []*Report{of("pop:p000"), of("up:a", bad)}, Up},
	} {
		v := Judge(Inputs{Reports: append(test.heard, reports...), Targets: targets, Vantages: vantages, Now: epoch}).Verdicts[targets[0]]
		if v.Status != test.want || v.Shedding != (test.want == Degraded) {
			t.Errorf("%s: got %+v", test.name, v)
		}
	}
	before := Verdicts{targets[0]: {Status: Degraded, Since: second(-99)}}
	v := Judge(Inputs{Reports: append(reports, of("up:a", well)), Targets: targets, Vantages: vantages, Now: epoch, Previous: before}).Verdicts[targets[0]]
	if v.Status != Up || !v.Since.Equal(epoch) {
		t.Errorf("well again: got %s since %v, want up since now", v.Status, v.Since)
	}
}

// random returns what vantages say of targets, at random.
func random(r *rand.Rand, targets []Target, vantages int, letters string) []string {
	words := []string{}
	for range vantages {
		word := []string{"EU:", "NA:", "AS:", ":"}[r.IntN(4)]
		for range targets {
			word += string(letters[r.IntN(len(letters))])
		}
		words = append(words, word)
	}
	return words
}

func TestTheOrderOfReportsDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	targets, _ := world(6)
	for range 500 {
		reports, vantages := reported(targets, random(r, targets, 1+r.IntN(9), "+--?~.")...)
		in := Inputs{Reports: reports, Targets: targets, Vantages: vantages, Now: epoch}
		want := fmt.Sprintf("%+v", Judge(in))
		in.Reports = slices.Clone(reports)
		r.Shuffle(len(reports), func(i, j int) { in.Reports[i], in.Reports[j] = in.Reports[j], in.Reports[i] })
		if got := fmt.Sprintf("%+v", Judge(in)); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// One vantage, whatever it says of whatever, in whatever region, with all the others of one mind.
func TestOneVantageNeverDecidesAgainstAllOthers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	targets, _ := world(6)
	for range 3000 {
		truth := make([]byte, len(targets))
		for i := range truth {
			truth[i] = "+-"[r.IntN(2)]
		}
		n := 2 + r.IntN(7)
		words := []string{random(r, targets, 1, "+-?~.")[0]}
		asked := make([]int, len(targets)) // honest vantages of each target
		for range n {
			word := []string{"EU:", "NA:", "AS:", ":"}[r.IntN(4)]
			for i := range targets {
				if r.IntN(4) > 0 {
					word, asked[i] = word+string(truth[i]), asked[i]+1
				} else {
					word += "."
				}
			}
			words = append(words, word)
		}
		reports, vantages := reported(targets, words...)
		before := Verdicts{}
		for i, target := range targets {
			before[target] = Verdict{Status: map[byte]Status{'+': Up, '-': Down}[truth[i]]}
		}
		j := Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: before, Now: epoch})
		for i, target := range targets {
			if got := j.Verdicts[target].Status; asked[i] >= 2 && got != before[target].Status {
				t.Fatalf("%v is %s, want %s; the first of %q lies; doubted: %v", target, got, before[target].Status, words, j.Doubted)
			}
		}
	}
}

// One more vantage that says down never brings a target up, and one more that says up never takes it down.
func TestVerdictsAreMonotone(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	targets, _ := world(2) // fewer than a vantage is doubted for
	order := map[Status]int{Down: 0, Unknown: 1, Up: 2}
	for range 3000 {
		words := random(r, targets, 1+r.IntN(9), "+-?")
		previous := Verdicts{targets[0]: {Status: []Status{Up, Down, Unknown}[r.IntN(3)]}}
		judge := func() Status {
			reports, vantages := reported(targets, words...)
			return Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: previous, Now: epoch}).Verdicts[targets[0]].Status
		}
		before := judge()
		which := r.IntN(len(words))
		at := strings.Index(words[which], ":") + 1
		old := words[which][at]
		if old == '+' {
			continue
		}
		was := words[which]
		words[which] = was[:at] + "+" + was[at+1:]
		if after := judge(); order[after] < order[before] {
			t.Fatalf("%q was %s; when number %d says up it is %s: %q", was, before, which, after, words)
		}
	}
}

// Where the reports decide, it does not matter what was before.
func TestNodesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	targets, _ := world(6)
	for range 1000 {
		reports, vantages := reported(targets, random(r, targets, 2+r.IntN(9), "+-")...)
		judge := func() Verdicts {
			previous := Verdicts{}
			for _, target := range targets {
				previous[target] = Verdict{Status: []Status{Up, Down, Unknown}[r.IntN(3)]}
			}
			return Judge(Inputs{Reports: reports, Targets: targets, Vantages: vantages, Previous: previous, Now: epoch}).Verdicts
		}
		if a, b := judge(), judge(); !a.SameStatus(b) {
			t.Fatalf("%v\n%v", a, b)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	for _, all := range []bool{false, true} {
		name := "assigned"
		if all {
			name = "everybody"
		}
		b.Run(name, func(b *testing.B) {
			targets, vantages := world(300, "EU", "NA", "AS", "SA", "OC", "AF")
			reports := make([]*Report, len(vantages))
			by := map[string]*Report{}
			for i, v := range vantages {
				reports[i] = &Report{Vantage: v, Incarnation: 1, Sequence: 1}
				by[v.Name] = reports[i]
			}
			for _, t := range targets {
				who := vantages
				if !all {
					who = Assign(t, vantages, 7)
				}
				for _, v := range who {
					by[v.Name].Statements = append(by[v.Name].Statements, Statement{Target: t, Status: Up, Took: time.Millisecond, Reason: "accepted a probe"})
				}
			}
			in := Inputs{Reports: reports, Targets: targets, Vantages: vantages, Now: epoch}
			in.Previous = Judge(in).Verdicts
			b.ReportAllocs()
			for b.Loop() {
				Judge(in)
			}
		})
	}
}
