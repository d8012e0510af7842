// Package receipt makes and checks receipts: proofs, signed by a PoP, that it has accepted a payload. It is pure but for the file of the key.
//
// A receipt is three parts in base64url without padding, separated by tildes:
//
//	JWS~CLAIMS~PATH
//
// CLAIMS is JSON that says what was accepted. JWS is a compact JSON Web Signature (RFC 7515) with Ed25519 (RFC 8037) whose payload is the
// root, 32 octets, of a Merkle tree whose leaves are the claims of all payloads that were made durable together. PATH leads from the claims to the
// root: leaf index and tree size as integers of RFC 9000 section 16, then the audit path of RFC 9162 section 2.1.3, of 32 octets each. So
// one signature, which costs more than all the rest of an intake's cryptography, serves a whole group commit. Who checks a receipt checks
// an ordinary JWS, and then hashes its way up:
//
//	claims, err := receipt.Verify(text, func(pop, kid string) ed25519.PublicKey { return keys[pop][kid] })
package receipt
