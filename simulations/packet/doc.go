// Package packet is the packet level of simulations: a network of hosts, links and lines in virtual time, over which the real client, DNS server,
// dataplane, forwarder and health checker talk to each other.
//
// Network carries datagrams through sockets of quic-go's simnet, and TCP as a modelled stream (see tcpConn) that real TLS and HTTP run over. Packets
// have a delay with jitter, and may be lost, reordered, too long, or too many for a line. Chance is counted, not consumed (see draw): equal seeds give
// equal times and outcomes.
//
//	network := packet.New(packet.Config{Way: packet.RTTs{{"sin", "iad"}: 224 * time.Millisecond}.Way})
//	host := network.Host("sin")
//	socket, err := network.ListenPacket(netip.AddrPortFrom(host, 443))
//
// Run runs a world of package world by a scenario, and measures it. docs/packet-level.md tells what is real, and what is a model. Files take no virtual
// time, and neither does work of the processor.
package packet
