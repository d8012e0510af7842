package topology

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// readKey reads a key's record that is written plainly, as MarshalValue nearly always writes it: a line for each field, and nothing in
// it that YAML has a special meaning for. It returns nil for all other text, which may be valid or not. There may be 100,000 keys to be
// read before a node can start, and this takes a tenth of the time.
func readKey(text string) *Key {
	k := &Key{}
	seen := 0 // a bit for each field
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(line, ": ")
		value, whole := strings.CutSuffix(value, "\n")
		field := strings.Index(" schema sha256 previous_sha256 previous_until services from quota_per_minute probe note created expires ", " "+name+" ")
		if !ok || !whole || field < 0 || seen>>field&1 != 0 || !k.readField(name, value) {
			return nil
		}
		seen |= 1 << field
	}
	return k
}

// readField reports whether it could read the value of a field.
func (k *Key) readField(name, value string) bool {
	if name == "services" || name == "from" {
		return k.readList(name, value)
	}
	if !isPlain(value, " ") {
		return false
	}
	var err error
	switch name {
	case "schema":
		k.Schema, err = strconv.Atoi(value)
	case "sha256":
		k.SHA256 = value
	case "previous_sha256":
		k.PreviousSHA256 = value
	case "previous_until":
		err = k.PreviousUntil.UnmarshalText([]byte(value))
	case "quota_per_minute":
		k.QuotaPerMinute, err = strconv.ParseInt(value, 10, 64)
	case "probe":
		k.Probe = value == "true"
		return k.Probe
	case "note":
		k.Note = value
	case "created":
		err = k.Created.UnmarshalText([]byte(value))
	case "expires":
		err = k.Expires.UnmarshalText([]byte(value))
	}
	return err == nil
}

func (k *Key) readList(name, value string) bool {
	inner, ok := strings.CutPrefix(value, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !ok || !closed {
		return false
	}
	for item := range strings.SplitSeq(inner, ", ") {
		if !isPlain(item, "") {
			return false
		}
		if name == "services" {
			k.Services = append(k.Services, item)
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			return false
		}
		k.From = append(k.From, prefix)
	}
	return true
}

// isPlain reports whether YAML reads a text as it stands: letters, digits and what has no meaning between them, and besides what is also
// allowed.
func isPlain(text, also string) bool {
	if text == "" || !isAlphanumeric(text[0]) || !isAlphanumeric(text[len(text)-1]) || strings.EqualFold(text, "null") {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !isAlphanumeric(c) && strings.IndexByte("._/-+@", c) < 0 && strings.IndexByte(also, c) < 0 && (c != ':' || text[i+1] == ' ') {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// MarshalKey returns what MarshalValue does of a key's record, in a fraction of the time.
func MarshalKey(k *Key) []byte {
	text := make([]byte, 0, 256)
	plain := true
	field := func(name, value string) {
		plain = plain && isPlain(value, " ")
		text = append(append(append(append(text, name...), ": "...), value...), '\n')
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			field(name, t.Format(time.RFC3339Nano))
		}
	}
	list := func(name string, n int, item func(int) string) {
		if n == 0 {
			return
		}
		text = append(append(text, name...), ": ["...)
		for i := range n {
			value := item(i)
			plain = plain && isPlain(value, "") && !mayNeedQuotes(value)
			if i > 0 {
				text = append(text, ", "...)
			}
			text = append(text, value...)
		}
		text = append(text, "]\n"...)
	}
	some := func(name, value string) {
		if value != "" {
			plain = plain && !mayNeedQuotes(value)
			field(name, value)
		}
	}
	field("schema", strconv.Itoa(k.Schema))
	some("sha256", k.SHA256)
	some("previous_sha256", k.PreviousSHA256)
	at("previous_until", k.PreviousUntil)
	list("services", len(k.Services), func(i int) string { return k.Services[i] })
	list("from", len(k.From), func(i int) string { return k.From[i].String() })
	field("quota_per_minute", strconv.FormatInt(k.QuotaPerMinute, 10))
	if k.Probe {
		field("probe", "true")
	}
	some("note", k.Note)
	field("created", k.Created.Format(time.RFC3339Nano))
	at("expires", k.Expires)
	if !plain || k.SHA256 == "" {
		return MarshalValue(k)
	}
	return text
}

// mayNeedQuotes reports whether YAML might take a plain text for something else than text: a number, a time, or a word such as yes. It is
// right when it says no.
func mayNeedQuotes(text string) bool {
	switch {
	case len(text) <= 5: // words
		return true
	case strings.Contains(text, "/"):
		return false
	case len(text) < 60 && strings.Trim(text, "0123456789abcdefABCDEF.:+-_xoTZ ") == "": // times, numbers of bases
		return true
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r > '9' && r != 'e' && r != 'E' && r != '_' })
}
