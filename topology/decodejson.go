package topology

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// jsonNode reads a document of JSON, and returns nil for one that is none: then it is YAML. Much JSON is YAML too, but not all: its keys
// may stand on a line of their own, and its strings have escapes that YAML has not.
func jsonNode(document []byte) *yaml.Node {
	document = bytes.TrimPrefix(document, []byte("\ufeff"))
	if trimmed := bytes.TrimLeft(document, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(document) || !utf8.Valid(document) {
		return nil
	}
	r := jsonReader{document: document, decoder: json.NewDecoder(bytes.NewReader(document)), line: 1}
	r.decoder.UseNumber()
	return r.value()
}

// jsonReader makes nodes, which have lines, of what is known to be JSON.
type jsonReader struct {
	document []byte
	decoder  *json.Decoder
	read     int // octets of which the lines are counted
	line     int
}

// token returns the next token and takes note of its line.
func (r *jsonReader) token() json.Token {
	token, err := r.decoder.Token()
	if err != nil {
		panic("topology: " + err.Error()) // the document was valid
	}
	end := int(r.decoder.InputOffset())
	r.line += bytes.Count(r.document[r.read:end], []byte("\n"))
	r.read = end
	return token
}

func (r *jsonReader) value() *yaml.Node {
	token := r.token()
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch token := token.(type) {
	case json.Delim:
		node.Kind = yaml.SequenceNode
		if token == '{' {
			node.Kind = yaml.MappingNode
		}
		for r.decoder.More() { // of an object, keys come like values
			node.Content = append(node.Content, r.value())
		}
		r.token() // the end
	case string:
		node.Value, node.Tag = token, "!!str"
	case json.Number:
		node.Value = token.String()
	case bool:
		node.Value = map[bool]string{true: "true", false: "false"}[token]
	case nil:
		node.Value, node.Tag = "null", "!!null"
	}
	return node
}
