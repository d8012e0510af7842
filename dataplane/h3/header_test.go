package h3

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/quic-go/qpack"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// decode reads a field section as another implementation does.
func decode(block []byte) (pairs []string, ok bool) {
	for next := qpack.NewDecoder().Decode(block); ; {
		f, err := next()
		if err == io.EOF {
			return pairs, true
		}
		if err != nil {
			return nil, false
		}
		pairs = append(pairs, f.Name, f.Value)
	}
}

// FuzzHeader has any octets parsed: what is taken for a header has what the field section says, and nothing that RFC 9114 section 4 has
// treated as malformed; it is the same header when it is compressed in another way.
func FuzzHeader(f *testing.F) {
	f.Add(encode(f, pseudo...))
	f.Add(encode(f, append(pseudo, "x-api-key", "a", "X-Api-Key", "b", "content-length", "1", "host", "intake.example.net")...))
	f.Add(encode(f, append([]string{"te", "trailers", "a", "b\r\n"}, pseudo...)...))
	f.Add([]byte{0, 0, 0xd1, 0xd7, 0x50, 1, 'a', 0xc1})
	f.Add([]byte{2, 0, 0x80, 0x10})
	const most = 1 << 10
	f.Fuzz(func(t *testing.T, block []byte) {
		h, err := parseHeader(block, most)
		if err != nil {
			return
		}
		pairs, ok := decode(block)
		if !ok {
			t.Fatal("another implementation does not read it")
		}
		size, regular := 0, 0
		pseudo := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			name, value := pairs[i], pairs[i+1]
			size += len(name) + len(value) + 32
			if strings.ContainsAny(value, "\r\n\x00") || strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ \r\n\x00") || name == "" {
				t.Errorf("%q: %q was taken", name, value)
			}
			if strings.HasPrefix(name, ":") {
				if _, twice := pseudo[name]; twice || regular > 0 {
					t.Errorf("%s is there twice, or too late", name)
				}
				pseudo[name] = value
				continue
			}
			if got := h.fields[regular]; got.Name != name || got.Value != value {
				t.Errorf("got %q, want %q: %q", got, name, value)
			}
			regular++
			switch name {
			case "connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection":
				t.Errorf("%s was taken", name)
			case "content-length":
				if n, err := strconv.ParseInt(value, 10, 64); err != nil || n != h.contentLength {
					t.Errorf("got the length %d of %q", h.contentLength, value)
				}
			}
		}
		path := h.path
		if _, query, found := strings.Cut(pseudo[":path"], "?"); found && h.method != "CONNECT" {
			path += "?" + h.query
			if query != h.query {
				t.Errorf("got the query %q, want %q", h.query, query)
			}
		}
		if size > most || len(h.fields) != regular || h.method != pseudo[":method"] || path != pseudo[":path"] || h.method == "" ||
			pseudo[":authority"] != "" && h.authority != pseudo[":authority"] {
			t.Errorf("got %+v of %q", h, pairs)
		}
		again, err := parseHeader(encode(t, pairs...), most)
		if err != nil || again.method != h.method || again.path != h.path || again.query != h.query || again.authority != h.authority ||
			again.contentLength != h.contentLength || again.expect != h.expect || again.early != h.early || len(again.fields) != len(h.fields) {
			t.Errorf("got %+v, then %+v, %v", h, again, err)
		}
	})
}

// FuzzAnswer has another implementation read answers of any text.
func FuzzAnswer(f *testing.F) {
	f.Add(202, "content-type", "application/json", "x-request-hash", strings.Repeat("0", 64), []byte("{}"), false)
	f.Add(599, "location", "", "", strings.Repeat("v", 1<<14), []byte{}, true)
	f.Fuzz(func(t *testing.T, status int, name, value, other, text string, body []byte, noBody bool) {
		status = 100 + int(uint(status)%500)
		a := &exchange.Answer{Status: status, Fields: []exchange.Field{{Name: name, Value: value}, {Name: other, Value: text}}, Body: body}
		in := appendAnswer([]byte("before"), a, noBody)[len("before"):]
		fr := frames{from: bytes.NewReader(in), buf: make([]byte, len(in)+1)}
		kind, length, err := fr.next()
		if err != nil || kind != frameHeaders {
			t.Fatal(kind, err)
		}
		block, err := fr.whole(length)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{":status", strconv.Itoa(status), name, value, other, text}
		if !noBody {
			want = append(want, "content-length", strconv.Itoa(len(body)))
		}
		if got, ok := decode(block); !ok || strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Fatalf("got %q, want %q", got, want)
		}
		kind, length, err = fr.next()
		if len(body) == 0 || noBody {
			if err != io.EOF {
				t.Errorf("got frame %d of %d, %v", kind, length, err)
			}
			return
		}
		if got, err2 := fr.whole(length); err != nil || err2 != nil || kind != frameData || !bytes.Equal(got, body) {
			t.Errorf("got frame %d with %q, %v, %v", kind, got, err, err2)
		}
	})
}
