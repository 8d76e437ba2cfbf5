// Package peer is what nodes say to each other: protobuf messages over gRPC, optionally with mutual TLS.
//
// # Use
//
// A Server is made with NewServer on a listener that the caller has bound, started with Start and ended with Stop. It serves
// the Node service (Describe, which is also the ping) and, when a handler is given, the Duplication service, whose stream the
// handler owns from the first message to the last. A Client speaks to any number of servers; it shares one connection per
// address among the calls to it, closes it with the last of them, and Close ends them all. Messages and services are defined in peerpb/peer.proto; a new
// service gets its own proto file and its own handler in Handlers.
//
// # Bounds
//
// A Server bounds connections (MaxConnections; one more is accepted and closed at once), streams per connection (MaxStreams),
// the size of a message (MaxMessageBytes, checked against the claimed length before the message is read), the size of headers,
// the time of a handshake, and the rate of a client's keepalive pings. What a handler reads ahead of its own work is the handler's
// to bound; flow control holds back a sender whose stream nobody reads. A panic in a handler ends that call with status Internal
// and is logged with its stack.
//
// # Retrying
//
// A Client never retries by itself and never dials in the background: every call on a broken connection makes one attempt and
// reports its error, so that the caller's backoff is the only one.
//
// # Locks
//
// Every mutex of this package is a leaf: nothing is called while one is held that takes another.
package peer
