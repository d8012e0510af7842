package dnssec

// LoadKeyring stands in for what another branch brings.
func LoadKeyring(string) (*Keyring, error) { return new(Keyring), nil }
