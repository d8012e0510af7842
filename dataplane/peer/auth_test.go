package peer

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

var (
	secret = []byte("a secret of twenty octets and more")
	moment = time.Unix(1_900_000_000, 0)
)

func TestPass(t *testing.T) {
	body := []byte(`{"asks":[]}`)
	good := newPass(secret, "sin1", "fra1", "POST", Path+"quota", body, moment)
	read, err := parsePass(good.String())
	if err != nil || *read != *good {
		t.Fatalf("got %+v, %v, want %+v", read, err, good)
	}
	with := func(change func(*pass)) *pass {
		changed := *good
		change(&changed)
		return &changed
	}
	for _, test := range []struct {
		name             string
		p                *pass
		secrets          [][]byte
		to, method, path string
		now              time.Time
		want             error
	}{
		{"as it was made", good, [][]byte{secret}, "fra1", "POST", Path + "quota", moment, nil},
		{"with the older secret", good, [][]byte{[]byte("the newer one, which is not the caller's"), secret}, "fra1", "POST", Path + "quota", moment, nil},
		{"with another secret", good, [][]byte{[]byte("the newer one, which is not the caller's")}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"without a secret", good, nil, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"to another PoP", good, [][]byte{secret}, "iad1", "POST", Path + "quota", moment, ErrStranger},
		{"to another PoP, that was put in", with(func(p *pass) { p.to = "iad1" }), [][]byte{secret}, "iad1", "POST", Path + "quota", moment, ErrStranger},
		{"of another PoP", with(func(p *pass) { p.from = "iad1" }), [][]byte{secret}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"by another method", good, [][]byte{secret}, "fra1", "PUT", Path + "quota", moment, ErrStranger},
		{"for another call", good, [][]byte{secret}, "fra1", "POST", Path + "receipt", moment, ErrStranger},
		{"of another time", with(func(p *pass) { p.time++ }), [][]byte{secret}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"of another number", with(func(p *pass) { p.nonce[0]++ }), [][]byte{secret}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"of another body", with(func(p *pass) { p.body[31]++ }), [][]byte{secret}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"of another MAC", with(func(p *pass) { p.mac[31]++ }), [][]byte{secret}, "fra1", "POST", Path + "quota", moment, ErrStranger},
		{"late", good, [][]byte{secret}, "fra1", "POST", Path + "quota", moment.Add(Fresh), nil},
		{"too late", good, [][]byte{secret}, "fra1", "POST", Path + "quota", moment.Add(Fresh + time.Millisecond), ErrStale},
		{"early", good, [][]byte{secret}, "fra1", "POST", Path + "quota", moment.Add(-Fresh), nil},
		{"too early", good, [][]byte{secret}, "fra1", "POST", Path + "quota", moment.Add(-Fresh - time.Millisecond), ErrStale},
	} {
		if err := test.p.verify(test.secrets, test.to, test.method, test.path, test.now); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if strings.Contains(good.String(), string(secret)) || newPass(secret, "sin1", "fra1", "POST", Path, body, moment).nonce == good.nonce {
		t.Error("the secret is shown, or a number is used twice")
	}
}

func TestParseSecrets(t *testing.T) {
	for _, test := range []struct {
		text string
		want int
		says string
	}{
		{string(secret), 1, ""}, {string(NewSecret()), 1, ""}, {string(secret) + "\r\n\n  " + string(secret) + "2 \n", 2, ""},
		{"", 0, "0 lines"}, {"short of what is wanted\nnot me", 0, "6 octets"}, {strings.Repeat(string(secret)+"\n", 4), 0, "4 lines"},
	} {
		got, err := ParseSecrets([]byte(test.text))
		if len(got) != test.want || (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: got %d, %v; want %d, %q", test.text, len(got), err, test.want, test.says)
		}
		for _, one := range got {
			if bytes.ContainsAny(one, " \r\n") && !bytes.HasPrefix(one, secret) {
				t.Errorf("got %q", one)
			}
		}
		if err != nil && test.text != "" && strings.Contains(err.Error(), "not me") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestNonces(t *testing.T) {
	n := newNonces(moment)
	call := func(number byte, at time.Duration) *pass {
		return &pass{time: moment.Add(at).UnixMilli(), nonce: [nonceSize]byte{number}}
	}
	for _, test := range []struct {
		name string
		p    *pass
		now  time.Duration // on the monotonic clock
		want error
	}{
		{"before the start, when another process may have seen it", call(1, -time.Second), 0, ErrStale},
		{"the first", call(2, 0), 0, nil},
		{"the first again", call(2, 0), Fresh, ErrAgain},
		{"another of the same time", call(3, 0), Fresh, nil},
		{"of a clock that is ahead", call(4, 50*time.Second), Fresh, nil},
		{"in the next generation, that one again", call(4, 50*time.Second), 2 * Fresh, ErrAgain},
		{"and the other", call(3, 0), 2 * Fresh, ErrAgain},
		{"when they are forgotten", call(4, 50*time.Second), 4 * Fresh, ErrStale},
		{"whatever the number", call(5, 50*time.Second), 4 * Fresh, ErrStale},
		{"what is younger", call(6, 51*time.Second), 4 * Fresh, nil},
	} {
		if err := n.use(test.p, moment.Add(test.now)); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	for i := range maxNonces {
		n.current[[nonceSize]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}] = struct{}{}
	}
	if err := n.use(call(7, 52*time.Second), moment.Add(4*Fresh)); !errors.Is(err, errTooMany) {
		t.Errorf("when it is full: got %v", err)
	}
}

// FuzzPass reads what anybody may send: what is taken is read as it was written, and is of no use without the secret.
func FuzzPass(f *testing.F) {
	good := newPass(secret, "sin1", "fra1", "POST", Path+"quota", nil, moment).String()
	for _, text := range []string{
		good, "", "v1", "v1 a b 1 " + strings.Repeat("A", 22) + " " + strings.Repeat("A", 43) + " " + strings.Repeat("A", 43),
		strings.Replace(good, "v1", "v2", 1), strings.Replace(good, " ", "  ", 1), strings.Replace(good, "sin1", "SIN 1", 1),
		strings.Replace(good, "1900000000000", "+1900000000000", 1), strings.Replace(good, "1900000000000", "99999999999999999999", 1), good + "=", good + "\n",
		strings.Repeat("v1 ", 200),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePass(text)
		if err != nil {
			if !errors.Is(err, ErrStranger) {
				t.Errorf("got %v", err)
			}
			return
		}
		if p.String() != text {
			t.Errorf("%q is read as %q", text, p)
		}
		if err := p.verify([][]byte{[]byte("what nobody has put in here")}, p.to, "POST", Path, moment); !errors.Is(err, ErrStranger) {
			t.Errorf("%q is taken: %v", text, err)
		}
	})
}
