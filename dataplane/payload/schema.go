package payload

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// conforms reports why a payload, which is JSON of the right form, does not conform to the JSON Schema.
func (c *Checker) conforms(body []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return &Error{Offset: -1, Problem: "is not JSON"} // the scanner has let it through: it takes nothing that this does not
	}
	err = c.schema.Validate(value)
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	for len(invalid.Causes) > 0 { // the innermost says most
		invalid = invalid.Causes[0]
	}
	at := strings.Join(invalid.InstanceLocation, "/")
	what := invalid.ErrorKind.LocalizedString(message.NewPrinter(language.English))
	return fmt.Errorf("the payload does not conform to the service's JSON Schema: at /%.200s: %.200s", at, what)
}
