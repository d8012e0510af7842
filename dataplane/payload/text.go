package payload

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// text reads a string from behind its quote. It returns where the closing quote is, or -1, and whether there are escapes.
func (s *scanner) text(i int) (end int, escaped bool) {
	begin, body := i-1, s.body
	for {
		// Eight octets at a time: the lowest mark is that of the first octet that is a quote, a backslash, a control character or not ASCII.
		// Borrows make false marks only above a true one.
		for i+8 <= len(body) {
			x := binary.LittleEndian.Uint64(body[i:])
			marks := (x | (x - ' '*ones) | ((x ^ '"'*ones) - ones) | ((x ^ '\\'*ones) - ones)) & highs
			if marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		for i < len(body) && body[i] >= ' ' && body[i] < utf8.RuneSelf && body[i] != '"' && body[i] != '\\' {
			i++
		}
		if i >= len(body) {
			return s.fail(begin, "the text has no end: want a closing quote"), false
		}
		switch c := body[i]; {
		case c == '"':
			return i, escaped
		case c == '\\':
			escaped = true
			if i = s.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			return s.fail(i, `a control character stands in a text: want it escaped, as \n or \u0000`), false
		default:
			for i < len(body) && body[i] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(body[i:])
				if r == utf8.RuneError && n == 1 {
					return s.fail(i, "it is not UTF-8"), false
				}
				i += n
			}
		}
	}
}

// escape reads an escape from its backslash.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.body) {
		return s.fail(i, "the text ends in an escape")
	}
	switch s.body[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		r, ok := hex4(s.body, i+2)
		if !ok {
			return s.fail(i, `want four hexadecimal digits after \u`)
		}
		if !utf16.IsSurrogate(r) {
			return i + 6
		}
		if low, ok := hex4(s.body, i+8); ok && s.body[i+6] == '\\' && s.body[i+7] == 'u' && utf16.DecodeRune(r, low) != utf8.RuneError {
			return i + 12
		}
		return s.fail(i, `a surrogate stands alone: want a pair such as \ud83d\ude00`)
	}
	return s.fail(i, `no such escape: want one of \" \\ \/ \b \f \n \r \t \u`)
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape appends a text that was read, without its escapes.
func unescape(to, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c != '\\' {
			to = append(to, c)
			i++
			continue
		}
		c = text[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(text, i)
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := hex4(text, i+2)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			to = utf8.AppendRune(to, r)
			continue
		}
		to = append(to, c)
	}
	return to
}
