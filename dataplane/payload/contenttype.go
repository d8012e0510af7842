package payload

import (
	"fmt"
	"mime"
	"strings"
)

const maxContentType = 256 // octets of the header

// types are the content types of a service.
type types struct {
	exact    map[string]bool // as they are mostly sent, so that most headers need no parsing
	media    map[string]bool
	suffixes [][2]string // of application/*+json: "application/", "+json"
	text     string
}

func compileTypes(list []string) types {
	t := types{exact: map[string]bool{}, media: map[string]bool{}, text: strings.Join(list, ", ")}
	for _, media := range list {
		if before, after, ok := strings.Cut(media, "*"); ok {
			t.suffixes = append(t.suffixes, [2]string{before, after})
			continue
		}
		t.media[media] = true
		for _, charset := range []string{"", "; charset=utf-8", ";charset=utf-8", "; charset=UTF-8", ";charset=UTF-8"} {
			t.exact[media+charset] = true
		}
	}
	return t
}

// Type reports why a payload of a Content-Type is not taken: status 415. A charset, if any, is UTF-8.
func (c *Checker) Type(contentType string) error {
	if c.types.exact[contentType] {
		return nil
	}
	if contentType == "" {
		return fmt.Errorf("the payload has no Content-Type: want %s", c.types.text)
	}
	if len(contentType) > maxContentType {
		return fmt.Errorf("the Content-Type is longer than %d octets: want %s", maxContentType, c.types.text)
	}
	media, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || !c.types.has(media) {
		return fmt.Errorf("the payload's Content-Type is not one that this service takes: want %s", c.types.text)
	}
	if charset, given := parameters["charset"]; given && !strings.EqualFold(charset, "utf-8") {
		return fmt.Errorf("the payload's charset is not utf-8")
	}
	return nil
}

func (t *types) has(media string) bool {
	if t.media[media] {
		return true
	}
	for _, s := range t.suffixes {
		if len(media) > len(s[0])+len(s[1]) && strings.HasPrefix(media, s[0]) && strings.HasSuffix(media, s[1]) {
			return true
		}
	}
	return false
}
