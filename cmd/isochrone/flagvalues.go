package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/dns"
)

// listValue is a flag that takes several values, separated by commas or one at a time, each checked as it is read.
type listValue[T any] struct {
	values *[]T
	parse  func(string) (T, error)
	given  bool // and so what stands in values is not the default
}

func listVar[T any](flags *pflag.FlagSet, values *[]T, name string, parse func(string) (T, error), usage string) {
	flags.Var(&listValue[T]{values: values, parse: parse}, name, usage)
}

// Set implements pflag.Value.
func (l *listValue[T]) Set(text string) error {
	var parsed []T
	for _, item := range strings.Split(text, ",") {
		value, err := l.parse(strings.TrimSpace(item))
		if err != nil {
			return err
		}
		parsed = append(parsed, value)
	}
	if l.given {
		parsed = append(*l.values, parsed...)
	}
	*l.values, l.given = parsed, true
	return nil
}

// Type implements pflag.Value.
func (l *listValue[T]) Type() string { return "list" }

// String implements pflag.Value.
func (l *listValue[T]) String() string { return strings.Join(l.GetSlice(), ",") }

// Append implements pflag.SliceValue.
func (l *listValue[T]) Append(text string) error { return l.Set(text) }

// Replace implements pflag.SliceValue.
func (l *listValue[T]) Replace(texts []string) error {
	parsed := make([]T, len(texts))
	for i, text := range texts {
		var err error
		if parsed[i], err = l.parse(text); err != nil {
			return err
		}
	}
	*l.values, l.given = parsed, true
	return nil
}

// GetSlice implements pflag.SliceValue.
func (l *listValue[T]) GetSlice() []string {
	if l.values == nil { // pflag makes a zero value to compare with
		return nil
	}
	texts := make([]string, len(*l.values))
	for i, value := range *l.values {
		texts[i] = fmt.Sprint(value)
	}
	return texts
}

// addrPortValue is a flag that takes an address and a port, or an empty text for none.
type addrPortValue struct{ addr *netip.AddrPort }

// Set implements pflag.Value.
func (v addrPortValue) Set(text string) (err error) {
	if text == "" {
		*v.addr = netip.AddrPort{}
		return nil
	}
	*v.addr, err = parseAddrPort(text)
	return err
}

// Type implements pflag.Value.
func (v addrPortValue) Type() string { return "address" }

// String implements pflag.Value.
func (v addrPortValue) String() string {
	if v.addr == nil || !v.addr.IsValid() {
		return ""
	}
	return v.addr.String()
}

func parseAddrPort(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return at, fmt.Errorf("%q is not an address and port such as 192.0.2.53:53 or [2001:db8::53]:53", text)
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

// parsePrefix reads a prefix; a lone address stands for itself.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is not a prefix such as 203.0.113.0/24 or 2001:db8::/32", text)
	}
	if prefix.Masked() != prefix {
		return prefix, fmt.Errorf("%s has bits behind its length: did you mean %s?", text, prefix.Masked())
	}
	return prefix, nil
}

// notifyTarget is a dns.NotifyTarget as it is written: ADDR:PORT or ADDR:PORT/KEYNAME.
type notifyTarget dns.NotifyTarget

// String returns the target as it is written.
func (n notifyTarget) String() string {
	if n.Key == "" {
		return n.Addr.String()
	}
	return n.Addr.String() + "/" + n.Key
}

func parseNotify(text string) (notifyTarget, error) {
	where, key, _ := strings.Cut(text, "/")
	at, err := netip.ParseAddrPort(where)
	if err != nil || at.Port() == 0 {
		return notifyTarget{}, fmt.Errorf("%q is not a secondary such as 192.0.2.54:53 or 192.0.2.54:53/KEYNAME", text)
	}
	if key != "" {
		key = keyName(key)
	}
	return notifyTarget{at, key}, nil
}
