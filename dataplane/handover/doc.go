// Package handover lets a QUIC connection stay with the process that has its keys, whoever receives its packets: connection ids
// name the PoP and the generation of its process, and packets of another generation are passed on to it, with their source address
// and their ECN mark, in the order of their arrival. The process that they are passed to answers from the same UDP socket, which
// both have.
//
// An upgrade, where both processes have the socket and a pair of connected sockets between them:
//
//	old := handover.NewSocket(udp, ids)   // serves
//	old.ReceiveFrom(pair[0])              // reads the UDP socket no more
//
//	new := handover.NewSocket(udp, ids.Next())
//	new.PassTo(pair[1])                   // before it is read for the first time
//
// Between PoPs a Mesh does the same for packets that BGP has carried to another PoP, since PoPs announce the same addresses:
//
//	mesh, err := handover.NewMesh(config)
//	mesh.Join(vip)                        // a socket on an address that other PoPs have too
//	mesh.Join(own)                        // a socket on an address of this PoP alone, where others pass packets on to
//
// A quic.Transport is given the Socket as its Conn, and the IDs as its ConnectionIDGenerator. What QUIC is, and when a process ends,
// is not this package's job. The key of stateless resets is never passed on.
package handover
