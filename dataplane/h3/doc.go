// Package h3 is a server of HTTP/3 (RFC 9114) on quic-go's connections, for short requests and answers.
//
// It does less than quic-go's own, at a fraction of the cost: requests are handled by goroutines that are used again, so that their
// stacks need not grow each time; frames are parsed where they were received; a header that is the same as the one before is not parsed
// again; an answer is one write. It has no server push, no datagrams, no CONNECT, no dynamic table (RFC 9204), no trailers in answers.
package h3
