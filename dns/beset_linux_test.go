package dns

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBeset asks in worlds where verdicts are of regions, PoPs degraded, drained, coming back or near capacity, and VIPs without announcers.
// The fast path gives the bytes of the full path. Through the loop of a real socket it answers all, and allocates nothing.
func TestBeset(t *testing.T) {
	calm := map[string]string{}
	for _, b := range besettings(time.Unix(1_800_000_000, 0)) {
		t.Run(b.name, func(t *testing.T) {
			s := beset(t, b)
			w := s.newWorker(s.common)
			var quick, want [][]byte
			others := 0
			plain, signed := besetQuestions(t, s)
			for i, packet := range slices.Concat(plain, signed) {
				agree(t, w, packet, netip.MustParseAddr("100.80.0.1"))
				answer := s.Answer(packet, netip.MustParseAddr("127.0.0.1"), UDP)
				if agree(t, w, packet, netip.MustParseAddr("127.0.0.1")) {
					quick, want = append(quick, packet), append(want, answer)
				}
				switch {
				case i >= len(plain): // no two signatures are the same
				case b.name == "calm":
					calm[string(packet)] = string(answer)
				case calm[string(packet)] != string(answer):
					others++
				}
			}
			if all := len(plain) + len(signed); len(quick) < all*9/10 { // rules leave some clients no PoP, and some signed answers are too long
				t.Errorf("the fast path has answered %d of %d questions", len(quick), all)
			}
			if b.name != "calm" && others < len(calm)/10 {
				t.Errorf("%d of %d answers are others than in a calm world", others, len(calm))
			}
			thread, client := threadAndClient(t, s)
			answer := make([]byte, bufferSize)
			at := 0
			if got := testing.AllocsPerRun(len(quick)/batchSize, func() {
				for i := range batchSize {
					if _, err := unix.Write(client, quick[(at+i)%len(quick)]); err != nil {
						t.Fatal(err)
					}
				}
				if err := thread.step(); err != nil {
					t.Fatal(err)
				}
				for i := range batchSize {
					if n, err := unix.Read(client, answer); err != nil || !bytes.Equal(answer[:max(n, 0)], want[(at+i)%len(quick)]) {
						t.Fatalf("question %x: answer %x, error %v", quick[(at+i)%len(quick)], answer[:max(n, 0)], err)
					}
				}
				at += batchSize
			}); got != 0 {
				t.Errorf("got %v allocations for each batch", got)
			}
			if got := thread.counts.quick.Load(); got != uint64(at) {
				t.Errorf("the fast path has answered %d of %d", got, at)
			}
		})
	}
}
