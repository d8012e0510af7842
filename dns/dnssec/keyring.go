// Package dnssec has the keys of signed zones, signatures, and the steps of a key roll.
package dnssec

// Keyring has private keys, by zone.
type Keyring struct{}
