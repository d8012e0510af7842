// Package certs is a PoP's source of certificates and of keys of session tickets. It issues nothing and asks nobody: files are read
// here, all else is given to it (Issued, Tickets) by who follows the store. Packages below it are what a control plane's leader does:
// certs/acme gets certificates by ACME, certs/rotation makes keys of tickets.
//
// A certificate is chosen by the name that a client asks for (SNI), exact before wildcard, from these in order: files, what was
// issued by ACME, and at last Own, such as the state folder's own CA. A handshake costs look-ups in maps and nothing else.
//
//	source, err := certs.Open(certs.Config{Dir: "/etc/isochrone/certs", Services: services, Own: own, Log: log})
//	go source.Run(ctx)
//	config := &tls.Config{GetCertificate: source.Certificate}
package certs
