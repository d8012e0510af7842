package dns

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// transferKeys are keys of all algorithms; the last two have one name.
func transferKeys() (keys []TSIGKey) {
	for i, algorithm := range []string{dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512} {
		keys = append(keys, TSIGKey{Name: strings.Split(algorithm, ".")[0] + ".key.", Algorithm: algorithm, Secret: []byte(strings.Repeat(string(rune('a'+i)), 32))})
	}
	return append(keys, TSIGKey{Name: "twice.", Algorithm: dns.HmacSHA256, Secret: []byte("old")}, TSIGKey{Name: "twice.", Algorithm: dns.HmacSHA256, Secret: []byte("new")})
}

func encoded(secret []byte) string { return base64.StdEncoding.EncodeToString(secret) }

// exchange asks a server; the error may be that the answer's signature does not verify.
func exchange(t *testing.T, network, at string, key TSIGKey, m *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 20 * time.Second, TsigSecret: map[string]string{key.Name: encoded(key.Secret)}}
	answer, _, err := client.Exchange(m, at)
	if answer == nil {
		t.Fatalf("%s over %s: %v", key.Name, network, err)
	}
	return answer, err
}

func TestTSIG(t *testing.T) {
	_, at := primary(t)
	keys := transferKeys()
	good := keys[2]
	question := func(key TSIGKey, signed time.Time) *dns.Msg {
		m := query(zoneName, dns.TypeSOA, "192.0.2.0/24")
		m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
		return m.SetTsig(key.Name, key.Algorithm, 300, signed.Unix())
	}
	sockets := newSocket(t, netip.MustParseAddrPort(at))
	send := map[string]func([]byte) []byte{"udp": sockets.overUDP, "tcp": sockets.overTCP}
	for network := range send {
		for _, key := range keys {
			answer, err := exchange(t, network, at, key, question(key, time.Now()))
			if err != nil || answer.Rcode != 0 || answer.IsTsig() == nil || answer.IsTsig().Error != 0 || len(answer.Answer) != 1 || answer.IsEdns0() == nil {
				t.Errorf("%s over %s: %v\n%v", key.Name, network, err, answer)
			}
		}
		for _, test := range []struct {
			name   string
			key    TSIGKey
			signed time.Time
			code   uint16
		}{
			{"unknown name", TSIGKey{"nobody.", dns.HmacSHA256, good.Secret}, time.Now(), dns.RcodeBadKey},
			{"another algorithm", TSIGKey{good.Name, dns.HmacSHA512, good.Secret}, time.Now(), dns.RcodeBadKey},
			{"another secret", TSIGKey{good.Name, good.Algorithm, []byte("wrong")}, time.Now(), dns.RcodeBadSig},
			{"a slow clock", good, time.Now().Add(-10 * time.Minute), dns.RcodeBadTime},
			{"a fast clock", good, time.Now().Add(10 * time.Minute), dns.RcodeBadTime},
		} {
			packet, mac, err := dns.TsigGenerate(question(test.key, test.signed), encoded(test.key.Secret), "", false)
			if err != nil {
				t.Fatal(err)
			}
			answered := send[network](packet)
			var answer dns.Msg
			if err := answer.Unpack(answered); err != nil {
				t.Fatal(err)
			}
			told := answer.IsTsig()
			if told == nil || answer.Rcode != dns.RcodeNotAuth || told.Error != test.code || len(answer.Answer) != 0 {
				t.Errorf("%s over %s: %v", test.name, network, &answer)
				continue
			}
			if test.code != dns.RcodeBadTime {
				if told.MACSize != 0 || told.OtherLen != 0 {
					t.Errorf("%s over %s: a signature with a key that is not shared: %v", test.name, network, told)
				}
				continue
			}
			clock, ok := tsigTime(told.OtherData)
			if !ok || time.Since(clock).Abs() > time.Minute || told.TimeSigned != uint64(test.signed.Unix()) { // RFC 8945 section 5.2.3
				t.Errorf("%s over %s: tells no time: %v", test.name, network, told)
			}
			if got := macOf(t, answered, test.key, mac); !strings.EqualFold(got, told.MAC) {
				t.Errorf("%s over %s: the answer has the MAC %s, want %s", test.name, network, told.MAC, got)
			}
		}
	}
}

// macOf computes the MAC that a message with a key of HMAC-SHA-256 must have (RFC 8945 section 4.3).
func macOf(t *testing.T, packet []byte, key TSIGKey, asked string) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(packet); err != nil {
		t.Fatal(err)
	}
	told := m.IsTsig()
	name, algorithm := wireName(key.Name), wireName(key.Algorithm)
	end := len(packet) - len(name) - 10 - len(algorithm) - 16 - int(told.MACSize) - int(told.OtherLen)
	stripped := slices.Clone(packet[:end])
	stripped[11]--
	before, _ := hex.DecodeString(asked)
	other, _ := hex.DecodeString(told.OtherData)
	h := hmac.New(sha256.New, key.Secret)
	for _, part := range [][]byte{
		binary.BigEndian.AppendUint16(nil, uint16(len(before))), before, stripped, []byte(name), {0, 255, 0, 0, 0, 0}, []byte(algorithm),
		binary.BigEndian.AppendUint64(nil, told.TimeSigned)[2:], binary.BigEndian.AppendUint16(nil, told.Fudge),
		binary.BigEndian.AppendUint16(nil, told.Error), binary.BigEndian.AppendUint16(nil, told.OtherLen), other,
	} {
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tsigTime reads the time of a server in a TSIG record that says BADTIME.
func tsigTime(other string) (time.Time, bool) {
	var seconds int64
	for _, digit := range other {
		seconds = seconds<<4 | int64(strings.IndexRune("0123456789abcdef", digit))
	}
	return time.Unix(seconds, 0), len(other) == 12
}

// TestTSIGOfTruncatedAnswer verifies an answer that is packed twice.
func TestTSIGOfTruncatedAnswer(t *testing.T) {
	_, at := primary(t)
	key := transferKeys()[2]
	m := new(dns.Msg).SetQuestion("big."+zoneName+".", dns.TypeTXT).SetEdns0(512, true).SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	answer, err := exchange(t, "udp", at, key, m)
	if err != nil || !answer.Truncated || answer.IsTsig() == nil {
		t.Errorf("%v\n%v", err, answer)
	}
}

// TestTSIGOfOddMAC has MACs of lengths that no truncation gives (RFC 8945 section 5.2.2.1).
func TestTSIGOfOddMAC(t *testing.T) {
	s, _ := primary(t)
	key := transferKeys()[2]
	m := query(zoneName, dns.TypeSOA, "").SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
	packet, mac, err := dns.TsigGenerate(m, encoded(key.Secret), "", false)
	if err != nil {
		t.Fatal(err)
	}
	for length, want := range map[int]int{0: dns.RcodeFormatError, 9: dns.RcodeFormatError, 15: dns.RcodeFormatError, 16: dns.RcodeNotAuth, 31: dns.RcodeNotAuth, 32: 0, 33: dns.RcodeFormatError} {
		var m dns.Msg
		if err := m.Unpack(packet); err != nil {
			t.Fatal(err)
		}
		m.IsTsig().MACSize, m.IsTsig().MAC = uint16(length), (mac + "00")[:2*length]
		cut, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var answer dns.Msg
		if err := answer.Unpack(s.Answer(cut, netip.MustParseAddr("127.0.0.1"), UDP)); err != nil || answer.Rcode != want {
			t.Errorf("%d octets: got %s, %v, want %s", length, dns.RcodeToString[answer.Rcode], err, dns.RcodeToString[want])
		}
	}
}
