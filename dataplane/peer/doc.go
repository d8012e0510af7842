// Package peer is how PoPs ask each other: for quota of keys that another PoP counts for, and for what has become of requests that another
// one has accepted. They do so at the intake's own address and port, over HTTP/3, or HTTP/2 where UDP does not get through, by POST below
// Path, and show that they are PoPs by an HMAC with a secret that all PoPs share. What it is about is JSON, a few kilobytes at most.
//
// A caller verifies the certificate of a service that the other PoP offers, as any client does. The one that is called verifies the HMAC,
// which covers method, path, body, both names, the time and a number that is used once: so a call cannot be changed, be sent to another
// PoP, or be sent again. Without a secret nobody is asked, and nobody answered.
//
//	server := peer.NewServer(peer.ServerConfig{Name: "sin1", Secrets: secrets})
//	peer.Handle(server, "echo", func(ctx context.Context, from, ask string) (string, error) { return ask, nil })
//	handler := server.Before(intake)
//
//	client := peer.NewClient(peer.ClientConfig{Name: "fra1", Secrets: secrets, Find: find})
//	var answer string
//	err := client.Call(ctx, "sin1", "echo", "hello", &answer)
package peer
