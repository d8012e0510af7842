// Package dnssec has the keys of signed zones, signatures, and the steps of a key roll (RFC 4033 to 4035).
//
// What keys a zone has and what each is used for is a topology.Signing, which stands in the store and is public. The private
// keys are files on each DNS node, in a Keyring. Both together make a Signer, which signs the record sets of one zone:
//
//	ring, err := dnssec.LoadKeyring(dir)
//	signer, err := dnssec.NewSigner("example.net", snapshot.Signing["example.net"], ring, dnssec.Options{TTL: 3600})
//	signatures, err := signer.Sign(rrset, time.Now())
//
// A Signer is made anew when the signing or the keys change, and inherits the signatures of the one before. StartRoll and
// NextStep make the signing of the next step of a key roll. What records a zone has is not this package's job, nor is it to
// choose which of them an answer shows: NSEC records are made here, but who asks decides which.
package dnssec
