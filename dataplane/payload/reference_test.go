package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// reference checks what every payload must be, slowly: encoding/json, and what is stricter here.
func reference(body []byte, maxDepth int) error {
	if !json.Valid(body) || !utf8.Valid(body) {
		return errors.New("not JSON in UTF-8")
	}
	if err := surrogates(string(body)); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var open []map[string]bool // names of objects; nil for arrays
	var isName []bool
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, isText := token.(string)
		if n := len(open); n > 0 && open[n-1] != nil && isText && isName[n-1] {
			if open[n-1][name] {
				return fmt.Errorf("%q twice", name)
			}
			open[n-1][name], isName[n-1] = true, false
			continue
		}
		switch token := token.(type) {
		case json.Number:
			if err := number(token.String()); err != nil {
				return err
			}
		case json.Delim:
			switch token {
			case '{':
				open, isName = append(open, map[string]bool{}), append(isName, true)
			case '[':
				open, isName = append(open, nil), append(isName, false)
			default:
				open, isName = open[:len(open)-1], isName[:len(isName)-1]
			}
			if len(open) > maxDepth {
				return errors.New("too deep")
			}
			if token == '{' || token == '[' {
				continue
			}
		}
		if n := len(open); n > 0 {
			isName[n-1] = true
		}
	}
}

func number(text string) error {
	if digits := strings.Trim(text, "+-.eE"); len(digits)-strings.Count(text, ".")-strings.Count(text[1:], "-")-strings.Count(text, "+")-
		strings.Count(strings.ToLower(text), "e") > 64 {
		return errors.New("digits")
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok {
		if n, err := strconv.Atoi(exponent); err != nil || n < -999 || n > 999 {
			return errors.New("exponent")
		}
	}
	return nil
}

// surrogates reports an escape of a surrogate that stands alone.
func surrogates(text string) error {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if i++; text[i] != 'u' {
			continue
		}
		r, _ := strconv.ParseUint(text[i+1:i+5], 16, 16)
		i += 4
		if r < 0xd800 || r > 0xdfff {
			continue
		}
		if r >= 0xdc00 || !strings.HasPrefix(text[i+1:], `\u`) {
			return errors.New("surrogate")
		}
		if low, _ := strconv.ParseUint(text[i+3:i+7], 16, 16); low < 0xdc00 || low > 0xdfff {
			return errors.New("surrogate")
		}
		i += 6
	}
	return nil
}

// TestTextsOfAllLengths has each octet that matters at each place of the scanner's words, and holds the answers to the reference.
func TestTextsOfAllLengths(t *testing.T) {
	c := compile(t, with("true"))
	for n := range 26 {
		for at := range n + 1 {
			for _, odd := range []string{"", `\n`, `\u0061`, `\`, `"`, "\x1f", "\x7f", "\x80", "é", "😀", "\xff", "\x00"} {
				body := `{"a":"` + strings.Repeat("x", at) + odd + strings.Repeat("~", n-at) + `": 1234567 , 12345678901234567890`
				whole := `{"` + strings.Repeat("x", at) + odd + strings.Repeat("~", n-at) + `":          12345678901234567890}`
				for _, body := range []string{body, whole} {
					if got, want := c.Check([]byte(body)), reference([]byte(body), 32); (got == nil) != (want == nil) {
						t.Fatalf("%q: got %v, want %v", body, got, want)
					}
				}
			}
		}
	}
}
