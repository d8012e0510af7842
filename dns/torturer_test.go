package dns

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// torturer makes packets.
type torturer struct {
	*rand.Rand
	seeds [][]byte
}

func newTorturer(seed uint64) *torturer {
	from := &torturer{Rand: rand.New(rand.NewPCG(seed, uint64(time.Now().UnixNano())))}
	cookie := option(optionCookie, 1, 2, 3, 4, 5, 6, 7, 8)
	for _, name := range []string{"", "mail", "intake", "two", "band", "canary", "explain.intake", "loop", "chain", "x.wild", "x.sub", "child", "b.c", "www", "sin1.intake"} {
		for _, qtype := range []uint16{1, 2, 6, 16, 28, 43, 46, 47, 48, 65, 251, 252, 255} {
			from.seeds = append(from.seeds,
				handmade(0, [4]byte{1, 0, 0, 0}, asked(name, qtype, 1)),
				handmade(0x100, [4]byte{1, 0, 0, 1}, asked(name, qtype, 1), opt(1232, 0, flagDO, option(optionSubnet, 0, 1, 24, 0, 192, 0, 2), cookie, option(optionNSID))),
				handmade(0x110, [4]byte{1, 0, 0, 1}, asked(name, qtype, 1), opt(512, 0, flagDO|flagCO, option(optionPadding, 0, 0), option(100, 1))))
		}
	}
	for _, key := range transferKeys() {
		for _, m := range []*dns.Msg{query(zoneName, dns.TypeSOA, "192.0.2.0/24"), new(dns.Msg).SetIxfr(zoneName+".", 1, "ns1.", "x.")} {
			packet, _, err := dns.TsigGenerate(m.SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix()), encoded(key.Secret), "", false)
			if err != nil {
				panic(err)
			}
			from.seeds = append(from.seeds, packet)
		}
	}
	from.seeds = append(from.seeds, handmade(0, [4]byte{1, 0, 0, 0}, asked("version.bind.", 16, 3)), handmade(0, [4]byte{0, 0, 0, 1}, opt(1232, 0, 0, cookie)))
	return from
}

// address is one of this machine, of which there are enough for all connections.
func (f *torturer) address() net.IP {
	return net.IPv4(127, byte(f.IntN(256)), byte(f.IntN(256)), byte(1+f.IntN(254)))
}

func (f *torturer) octets(n int) []byte {
	octets := make([]byte, n)
	for i := range octets {
		octets[i] = byte(f.Uint32())
	}
	return octets
}

// packet makes a packet with a number.
func (f *torturer) packet(id uint16) []byte {
	var packet []byte
	switch seed := f.seeds[f.IntN(len(f.seeds))]; f.IntN(12) {
	case 0:
		packet = f.octets(f.IntN(600))
	case 1:
		packet = append(append(f.octets(2), 0, 0, 0, 1, 0, 0, 0, 0, 0, byte(f.IntN(2))), f.octets(f.IntN(100))...)
	case 2: // a name that nobody has asked for before
		packet = handmade(0, [4]byte{1, 0, 0, 1}, []byte{7}, []byte(strconv.FormatUint(1e6+f.Uint64N(9e6), 10)), asked([]string{"", "wild", "intake", "alias"}[f.IntN(4)], 1, 1), opt(1232, 0, flagDO))
	case 3:
		packet = seed[:f.IntN(len(seed)+1)]
	case 4:
		packet = append(bytes.Clone(seed), f.octets(f.IntN(3000))...)
	case 5: // two, one behind the other's beginning
		other := f.seeds[f.IntN(len(f.seeds))]
		packet = append(bytes.Clone(seed[:f.IntN(len(seed)+1)]), other[f.IntN(len(other)+1):]...)
	case 6: // counts
		packet = bytes.Clone(seed)
		packet[4+2*f.IntN(4)+1] = byte(f.IntN(4))
	default:
		packet = bytes.Clone(seed)
		for range f.IntN(6) {
			packet[f.IntN(len(packet))] ^= 1 << f.IntN(8)
		}
	}
	packet = bytes.Clone(packet)
	if len(packet) >= 2 {
		binary.BigEndian.PutUint16(packet, id)
	}
	return packet
}
