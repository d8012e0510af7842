package dataplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// acceptsType reports whether a Content-Type is that of JSON in UTF-8 (RFC 8259, RFC 6839 section 3.1).
func acceptsType(contentType string) bool {
	if len(contentType) > 256 {
		return false
	}
	media, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return false
	}
	charset, given := parameters["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// checkPayload reports why a body is not a JSON object with the required fields.
func checkPayload(body []byte, required []string) error {
	if !utf8.Valid(body) {
		return errors.New("the payload is not UTF-8")
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			return fmt.Errorf("the payload is not JSON: at octet %d: %s", syntax.Offset, syntax)
		}
		return errors.New("the payload is JSON, but not an object")
	}
	if object == nil {
		return errors.New("the payload is null, not an object")
	}
	var missing []string
	for _, field := range required {
		if value, ok := object[field]; !ok || string(value) == "null" {
			missing = append(missing, field)
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return fmt.Errorf("the payload lacks %s; required are %s", strings.Join(missing, ", "), strings.Join(required, ", "))
	}
	return nil
}
