package dns

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

func secret(t *testing.T, text string) (s [16]byte) {
	t.Helper()
	if n, err := hex.Decode(s[:], []byte(text)); n != 16 || err != nil {
		t.Fatal(n, err)
	}
	return s
}

// TestCookieVectors has the examples of RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	const first, rolled, old = "e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962", "dd3bdf9344b678b185a6f5cb60fca715"
	for _, test := range []struct {
		name    string
		secrets []string
		from    string
		now     uint32
		asked   string
		valid   bool
		want    string
	}{
		{"A.1: a new one", []string{first}, "198.51.100.100", 1559731985, "2464c4abcf10c957", false, "2464c4abcf10c957010000005cf79f111f8130c3eee29480"},
		{"fresh: it comes back", []string{first}, "198.51.100.100", 1559731985 + 1799, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", true, "2464c4abcf10c957010000005cf79f111f8130c3eee29480"},
		{"A.2: renewed", []string{first}, "198.51.100.100", 1559734385, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", true, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"},
		{"A.3: reserved octets are hashed", []string{first}, "203.0.113.203", 1559727985 + 60, "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", true, "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5"},
		{"A.3: an older one than section 4.3 allows", []string{first}, "203.0.113.203", 1559734700, "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", false, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"},
		{"A.4: the secret has been rolled", []string{rolled, old}, "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961, "22681ab97d52c298010000005cf7c57926556bd0934c72f8", true, "22681ab97d52c298010000005cf7c609a6bb79d16625507a"},
		{"the old secret is gone", []string{rolled}, "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961, "22681ab97d52c298010000005cf7c57926556bd0934c72f8", false, "22681ab97d52c298010000005cf7c609a6bb79d16625507a"},
		{"another client's", []string{first}, "198.51.100.101", 1559731985, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", false, ""},
		{"another client cookie's", []string{first}, "198.51.100.100", 1559731985, "2464c4abcf10c958010000005cf79f111f8130c3eee29480", false, ""},
		{"another version's", []string{first}, "198.51.100.100", 1559731985, "2464c4abcf10c957020000005cf79f111f8130c3eee29480", false, ""},
		{"an hour old", []string{first}, "198.51.100.100", 1559731985 + 3600, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", true, ""},
		{"expired", []string{first}, "198.51.100.100", 1559731985 + 3601, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", false, ""},
		{"five minutes ahead", []string{first}, "198.51.100.100", 1559731985 - 300, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", true, ""},
		{"of the future", []string{first}, "198.51.100.100", 1559731985 - 301, "2464c4abcf10c957010000005cf79f111f8130c3eee29480", false, ""},
		{"longer than ours", []string{first}, "198.51.100.100", 1559731985, "2464c4abcf10c957010000005cf79f111f8130c3eee2948000", false, ""},
	} {
		var secrets [][16]byte
		for _, text := range test.secrets {
			secrets = append(secrets, secret(t, text))
		}
		jar, from := newCookieJar(secrets), netip.MustParseAddr(test.from)
		option, err := hex.DecodeString(test.asked)
		if err != nil {
			t.Fatal(err)
		}
		valid, fresh := jar.check(option, from, test.now)
		var reply [clientCookieSize + serverCookieSize]byte
		jar.reply(&reply, option, from, test.now, fresh)
		if valid != test.valid {
			t.Errorf("%s: valid %v, want %v", test.name, valid, test.valid)
		}
		if got := hex.EncodeToString(reply[:]); test.want != "" && got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if valid, fresh := jar.check(reply[:], from, test.now); !valid || !fresh && test.valid {
			t.Errorf("%s: our own cookie %x is valid %v, fresh %v", test.name, reply, valid, fresh)
		}
	}
}

// TestCookieTimesWrap has times of a day in 2106, when their 32 bits begin anew (RFC 1982).
func TestCookieTimesWrap(t *testing.T) {
	jar, from := newCookieJar(nil), netip.MustParseAddr("192.0.2.1")
	var cookie [clientCookieSize + serverCookieSize]byte
	jar.reply(&cookie, make([]byte, clientCookieSize), from, 0xffffff00, false)
	if valid, fresh := jar.check(cookie[:], from, 0x100); !valid || !fresh {
		t.Errorf("valid %v, fresh %v, want both", valid, fresh)
	}
}
