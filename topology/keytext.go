package topology

import (
	"net/netip"
	"strconv"
	"strings"
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
