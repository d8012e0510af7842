// Package topology says what there is: zones, services, PoPs and clusters, the temporary overrides of operators, and the
// API keys of clients. It holds the model, its strict YAML and JSON form, and its validation.
//
// It is pure: no I/O and no clock. Package topology/store keeps a topology in etcd; package router decides by it.
//
// A topology is written as one document, or one object at a time (the value of an etcd key):
//
//	schema: 1
//	pops:
//	  sin1:
//	    location: {lat: 1.35, lon: 103.99, country: SG, city: Singapore}
//	    addresses: [203.0.113.1]
//
// Objects are known by their names. A name is never given to another object in the same life of a store, so that
// records which outlive a process (receipts, history) may refer to it.
//
// Values of this package are immutable once they are part of a Snapshot: readers share them without locks.
package topology
