package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A request of an endpoint is a struct whose fields say where their values come from:
//
//	Name  string             `path:"name"`    a part of the path
//	Limit int                `query:"limit"`  a parameter; a slice takes all of its values
//	Match string             `header:"If-Match"`
//	Body  topology.Override  `body:"json"`    the body, read strictly
//	Text  string             `body:"text"`    the body as it is
//
// The OpenAPI document is made of the same tags.

// maxBodyBytes bounds a request's body.
const maxBodyBytes = 1_500_000

// decodeRequest fills a request of a type. The error is an ErrInvalid that names what is wrong, or ErrTooLarge.
func decodeRequest(r *http.Request, typ reflect.Type) (any, error) {
	request := reflect.New(typ).Elem()
	query, known := r.URL.Query(), []string{}
	for i := range typ.NumField() {
		field, tag := request.Field(i), typ.Field(i).Tag
		var err error
		if name, ok := tag.Lookup("query"); ok {
			known = append(known, name)
			err = setField(field, name, query[name])
		} else if name, ok := tag.Lookup("path"); ok {
			err = setField(field, name, []string{r.PathValue(name)})
		} else if name, ok := tag.Lookup("header"); ok {
			err = setField(field, name, r.Header.Values(name))
		} else if how, ok := tag.Lookup("body"); ok {
			err = readBody(r, how, field)
		}
		if err != nil {
			return nil, err
		}
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%w: there is no parameter %q here; there are %q", ErrInvalid, name, known)
		}
	}
	return request.Interface(), nil
}

// setField gives a field the values of a parameter.
func setField(field reflect.Value, name string, values []string) error {
	if field.Kind() == reflect.Slice {
		field.Set(reflect.ValueOf(slices.Clone(values)))
		return nil
	}
	if len(values) > 1 {
		return fmt.Errorf("%w: %s is given %d times", ErrInvalid, name, len(values))
	}
	if len(values) == 0 || values[0] == "" {
		return nil
	}
	switch value := values[0]; field.Kind() {
	case reflect.String:
		field.SetString(value)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, field.Type().Bits())
		if err != nil || n < 0 {
			return fmt.Errorf("%w: %s %q is not a whole number", ErrInvalid, name, value)
		}
		field.SetInt(n)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%w: %s %q is neither true nor false", ErrInvalid, name, value)
		}
		field.SetBool(b)
	default:
		panic("controlplane: no parameter can be a " + field.Type().String())
	}
	return nil
}

func readBody(r *http.Request, how string, field reflect.Value) error {
	text, err := io.ReadAll(r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return fmt.Errorf("%w: a request's body has at most %d bytes", ErrTooLarge, tooLarge.Limit)
	}
	if err != nil {
		return fmt.Errorf("%w: the body cannot be read", ErrInvalid)
	}
	if how == "text" {
		field.SetString(string(text))
		return nil
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil // all of it is left out
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(field.Addr().Interface()); err != nil {
		return fmt.Errorf("%w: body: %s", ErrInvalid, strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); err != io.EOF {
		return fmt.Errorf("%w: body: want one JSON value", ErrInvalid)
	}
	return nil
}
