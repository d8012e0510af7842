// Package relay lets nodes that are far from etcd follow the store through the control plane, which is near it: over the ocean goes one
// stream to each node, of what that kind of node needs, and no watch of etcd.
//
// A Hub follows the store once, for all. It is an http.Handler for a server with HTTP/2 and client certificates, whose common name says
// who asks: pop:NAME or dns:NAME.
//
//	GET  /v1/relay/watch?sum=SUM&revision=REV
//	                               what is stored and what changes, as a stream of messages (message.go)
//	POST /v1/relay/report          what the node tells of itself: it stands in nodes/ for as long as the node's stream lives
//	POST /v1/relay/quota           the number of the window, and grants of keys' quota, of a PoP
//
// A node that comes back says by a sum what it has. If the hub's ring of the last changes leads on from there, it is told those, else all
// there is, unless the hub lags behind what another one has told the node. The sum is of what is stored and not of who tells it, so it is as
// good with another hub, and with one that was started anew.
// Messages are encoded once for all nodes of a kind. A node that does not read is cut off, and none has a buffer of its own.
//
// A Client is a node's side: its Feed is for store.Follower.
package relay
