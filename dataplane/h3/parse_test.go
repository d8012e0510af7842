package h3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quic-go/qpack"

	"github.com/isochrone/isochrone/dataplane/exchange"
)

// encode makes a field section as another implementation does.
func encode(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := e.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var pseudo = []string{":method", "POST", ":scheme", "https", ":authority", "intake.example.net", ":path", "/api/v1/ingest?a=b?c"}

func TestHeader(t *testing.T) {
	h, err := parseHeader(encode(t, append(pseudo, "x-api-key", "secret", "content-length", "17", "expect", "100-Continue", "x-api-key", "second", "cookie", "a\tb")...), 16<<10)
	if err != nil {
		t.Fatal(err)
	}
	if h.method != "POST" || h.path != "/api/v1/ingest" || h.query != "a=b?c" || h.authority != "intake.example.net" || h.contentLength != 17 || !h.expect || h.early {
		t.Errorf("got %+v", h)
	}
	for name, want := range map[string]string{"X-Api-Key": "secret", "Content-Length": "17", "Cookie": "a\tb", "X-Api": "", "": ""} {
		if got := h.fields.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestMalformedHeaders has what RFC 9114 sections 4.1.2 to 4.3.1 have treated as malformed.
func TestMalformedHeaders(t *testing.T) {
	with := func(more ...string) []string { return append(append([]string(nil), pseudo...), more...) }
	without := func(name string) (kept []string) {
		for i := 0; i < len(pseudo); i += 2 {
			if pseudo[i] != name {
				kept = append(kept, pseudo[i], pseudo[i+1])
			}
		}
		return kept
	}
	for name, test := range map[string]struct {
		pairs []string
		want  error
	}{
		"right":                     {with(), nil},
		"host instead of authority": {append(without(":authority"), "host", "intake.example.net"), nil},
		"host and authority":        {with("host", "intake.example.net"), nil},
		"two hosts":                 {with("host", "other.example.net"), errMalformed},
		"trailers":                  {with("te", "trailers"), nil},
		"CONNECT":                   {[]string{":method", "CONNECT", ":authority", "a:1"}, nil},
		"no method":                 {without(":method"), errMalformed},
		"no scheme":                 {without(":scheme"), errMalformed},
		"no path":                   {without(":path"), errMalformed},
		"no authority":              {without(":authority"), errMalformed},
		"a pseudo field twice":      {with(":path", "/"), errMalformed},
		"an unknown pseudo field":   {with(":protocol", "websocket"), errMalformed},
		"status":                    {with(":status", "200"), errMalformed},
		"a pseudo field at the end": {append(append(without(":path"), "a", "b"), ":path", "/"), errMalformed},
		"upper case":                {with("X-Api-Key", "a"), errMalformed},
		"a space in a name":         {with("x api", "a"), errMalformed},
		"an empty name":             {with("", "a"), errMalformed},
		"connection":                {with("connection", "close"), errMalformed},
		"transfer-encoding":         {with("transfer-encoding", "chunked"), errMalformed},
		"upgrade":                   {with("upgrade", "websocket"), errMalformed},
		"te":                        {with("te", "gzip"), errMalformed},
		"a line in a value":         {with("a", "b\r\nc: d"), errMalformed},
		"NUL":                       {with("a", "b\x00"), errMalformed},
		"no number":                 {with("content-length", "1x"), errMalformed},
		"a negative length":         {with("content-length", "-1"), errMalformed},
		"two lengths":               {with("content-length", "1", "content-length", "2"), errMalformed},
		"one length twice":          {with("content-length", "1", "content-length", "1"), nil},
		"a user in the authority":   {append(without(":authority"), ":authority", "u@intake.example.net"), errMalformed},
		"a path without a slash":    {append(without(":path"), ":path", "api"), errMalformed},
		"a method that is no token": {append(without(":method"), ":method", "PO ST"), errMalformed},
		"too large":                 {with("a", strings.Repeat("b", 16<<10)), errLarge},
		"many fields":               {with(strings.Split(strings.Repeat("a,b,", maxFields+1)+"a,b", ",")...), errLarge},
	} {
		if _, err := parseHeader(encode(t, test.pairs...), 16<<10); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	for name, block := range map[string][]byte{"nothing": {}, "a dynamic table": {1, 0}, "an index that there is not": {0, 0, 0xff, 0xff, 0x7f}, "cut off": {0, 0, 0x27}} {
		if _, err := parseHeader(block, 16<<10); err == nil {
			t.Errorf("%s was taken for a header", name)
		}
	}
}

// TestAnswer has another implementation read our answers.
func TestAnswer(t *testing.T) {
	for _, status := range []int{100, 200, 202, 400, 401, 404, 425, 429, 503} {
		a := &exchange.Answer{Status: status, Fields: []exchange.Field{{Name: "content-type", Value: "application/json"}, {Name: "x-long", Value: strings.Repeat("v", 300)}}, Body: []byte("body")}
		f := frames{from: bytes.NewReader(appendAnswer(nil, a, false)), buf: make([]byte, 4096)}
		kind, length, err := f.next()
		block, err2 := f.whole(length)
		if err != nil || err2 != nil || kind != frameHeaders {
			t.Fatal(kind, err, err2)
		}
		var got []string
		for next := qpack.NewDecoder().Decode(block); ; {
			field, err := next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, field.Name+"="+field.Value)
		}
		want := ":status=" + statusOf(status) + " content-type=application/json x-long=" + strings.Repeat("v", 300) + " content-length=4"
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if kind, length, err := f.next(); kind != frameData || length != 4 || err != nil {
			t.Errorf("got frame %d of %d, %v", kind, length, err)
		}
	}
}

func statusOf(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

// stream makes the octets of a request stream of frames: a type and a payload in turns.
func stream(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		payload := parts[i+1].([]byte)
		b = append(appendFrame(b, uint64(parts[i].(int)), len(payload)), payload...)
	}
	return b
}

// readBody reads the body of a stream behind its header.
func readBody(from io.Reader, length int64, size int) ([]byte, *connectionError, error) {
	b := body{frames: &frames{from: from, buf: make([]byte, 64)}, length: length}
	var all []byte
	for p := make([]byte, size); ; {
		n, err := b.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, b.fatal, nil
		}
		if err != nil {
			return all, b.fatal, err
		}
	}
}

func TestBody(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 50)
	for name, test := range map[string]struct {
		stream []byte
		length int64
		want   string
		fails  bool
		fatal  bool
	}{
		"one frame":              {stream(0, []byte("hello")), 5, "hello", false, false},
		"no length":              {stream(0, []byte("hello")), -1, "hello", false, false},
		"none":                   {nil, -1, "", false, false},
		"none, as told":          {nil, 0, "", false, false},
		"many frames":            {stream(0, []byte("hel"), 0, []byte{}, 0, []byte("lo"), 0x21, []byte("grease"), 0, long), -1, "hello" + string(long), false, false},
		"trailers":               {stream(0, []byte("a"), 1, []byte{0, 0}), 1, "a", false, false},
		"too short":              {stream(0, []byte("hell")), 5, "hell", true, false},
		"too long":               {stream(0, []byte("hello")), 4, "hell", true, false},
		"longer by a frame":      {stream(0, []byte("hell"), 0, []byte("o")), 4, "hell", true, false},
		"cut off":                {stream(0, []byte("hello"))[:4], 5, "he", true, true},
		"cut off in a type":      {append(stream(0, []byte("a")), 0x40), -1, "a", true, true},
		"grease cut off":         {stream(0, []byte("a"), 0x21, long)[:9], -1, "a", true, true},
		"SETTINGS":               {stream(0, []byte("a"), 4, []byte{}), -1, "a", true, true},
		"data after trailers":    {stream(1, []byte{0, 0}, 0, []byte("a")), -1, "", true, true},
		"a frame of HTTP/2":      {stream(0x8, []byte{}), -1, "", true, true},
		"a long frame of no use": {stream(0x21, long, 0, []byte("a")), 1, "a", false, false},
	} {
		for reads, from := range map[string]io.Reader{"at once": bytes.NewReader(test.stream), "by octets": iotest.OneByteReader(bytes.NewReader(test.stream)), "with the end": iotest.DataErrReader(bytes.NewReader(test.stream))} {
			got, fatal, err := readBody(from, test.length, 7)
			if string(got) != test.want || (err != nil) != test.fails || (fatal != nil) != test.fatal {
				t.Errorf("%s, %s: got %q, %v, %v", name, reads, got, err, fatal)
			}
		}
	}
}

// FuzzRequestStream reads any octets as a request, by whole reads and octet by octet, with the same result.
func FuzzRequestStream(f *testing.F) {
	f.Add(append(stream(1, encode(f, pseudo...)), stream(0, []byte("hello"), 0x21, []byte("x"), 0, []byte("more"))...))
	f.Add(stream(0x21, []byte("grease"), 1, encode(f, append(pseudo, "content-length", "3")...), 0, []byte("abcd")))
	f.Add([]byte{1, 0xff, 0xff})
	read := func(from io.Reader) (string, string) {
		s := New(Config{})
		b := newBuffers()
		b.frames = frames{from: from, buf: b.in[:]}
		h, err := s.header(job{conn: new(conn)}, b)
		if err != nil {
			return "", err.Error()
		}
		in := body{frames: &b.frames, length: h.contentLength}
		text, err := io.ReadAll(&in)
		if err != nil {
			return string(text), err.Error()
		}
		if h.contentLength >= 0 && int64(len(text)) != h.contentLength {
			panic("a body of another length than was told")
		}
		return h.method + h.path + string(text), ""
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		once, err := read(bytes.NewReader(octets))
		slowly, err2 := read(iotest.OneByteReader(bytes.NewReader(octets)))
		if once != slowly || (err == "") != (err2 == "") {
			t.Errorf("at once %q, %s; octet by octet %q, %s", once, err, slowly, err2)
		}
	})
}
