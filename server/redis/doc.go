// Package redis serves Redis clients over TCP: RESP2 and RESP3, the commands of docs/commands.md, on a partitioned Store.
//
// # How a connection works
//
// Each connection has one goroutine. It parses every request that has arrived, and in order
//   - answers what concerns the connection or the server alone;
//   - reads from a partition's snapshot, when nothing this connection wrote to that partition is outstanding;
//   - proposes everything else to its partition, as an Op, without waiting.
//
// When nothing more is buffered it waits once for all outstanding ops, appends their replies in the order of the requests, and sends
// them with one system call. A client that sends 16 requests together thus pays for one wait, one read and one write.
//
// Ordering: a connection sees its own writes. Commands of one connection that concern the same partition take effect in the order
// they were sent; replies always come in that order. Commands on different partitions may take effect in any order while they are
// under way together. A command over many keys is one Op for each partition concerned; each of those is atomic, the command is not.
// When one part fails the client gets that error, whatever became of the others.
//
// # Memory
//
// Arguments are parts of the read buffer until the last op that refers to them is finished, so that values are not copied on the
// way to the partition. A connection holds at most Limits.MaxRequestBytes of requests and MaxReplyBytes of replies; sums over all
// connections are bounded by MaxBufferBytes. It reads no request while its client does not take the replies of those before.
//
// # Faults
//
// A panic in a connection's code ends that connection, is logged with its stack and counted; a panic in an Op's Execute is contained by
// the Store and ends the connection too. Malformed requests get an error and end the connection (package resp).
//
// Lock order: Server.mu, then conn.infoMu; neither is held while a Store or the network is called.
package redis
