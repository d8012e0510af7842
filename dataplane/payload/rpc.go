package payload

import "slices"

// rpcFields are what a JSON-RPC 2.0 request has, as far as it was read.
type rpcFields struct {
	batch   bool // the outermost value is an array
	at      int
	version bool
	method  bool
	called  name
}

func (r *rpcFields) begin(int) { r.version, r.method = false, false }

// field notes a field of a request (JSON-RPC 2.0 section 4).
func (r *rpcFields) field(s *scanner, n name, value span) {
	first := kind(s.data[value.start])
	switch string(s.plain(n, 0)) {
	case "jsonrpc":
		if r.version = string(s.data[value.start:value.end]) == `"2.0"`; !r.version {
			s.fail(value.start, `has another jsonrpc than "2.0"`)
		}
	case "method":
		if r.method = first == text; !r.method {
			s.fail(value.start, "has a method that is not a string")
			return
		}
		r.called = name{span: span{value.start + 1, value.end - 1}, escaped: true}
		methods := s.checker.rpc.Methods
		if called := s.plain(r.called, 0); len(methods) > 0 && !slices.Contains(methods, string(called)) {
			s.fail(value.start, "calls the method %.40q, which this service does not take", called)
		}
	case "params":
		if first != object && first != array {
			s.fail(value.start, "has params that are neither an object nor an array")
		}
	case "id":
		if first == object || first == array || first == yes || first == no {
			s.fail(value.start, "has an id that is not a string, a number or null")
		}
	}
}

// end checks a request that was read to its end.
func (r *rpcFields) end(s *scanner) bool {
	switch {
	case s.fault != nil:
		return false
	case !r.version:
		return s.fail(s.pos-1, `has a request without "jsonrpc": "2.0"`)
	case !r.method:
		return s.fail(s.pos-1, "has a request without a method")
	}
	return true
}
