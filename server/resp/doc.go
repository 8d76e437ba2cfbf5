// Package resp reads requests and writes replies of the Redis serialization protocol, versions 2 and 3.
//
// # Requests
//
// A request is either an array of bulk strings
//
//	*<count>\r\n  then count times  $<length>\r\n<length bytes>\r\n
//
// or an inline line of words, ended by \n or \r\n, with the quoting rules of a Redis command line:
//
//	SET "a key" 'a value'\r\n     in "…": \n \r \t \b \a \\ \" \xHH     in '…': \'
//
// An array with a count of zero or less and an empty line are skipped, as Redis does. Counts and lengths are plain decimal
// numbers without sign or leading zeros; every \r\n is checked.
//
// Reader works in two steps so that a server can serve everything a client has sent with one system call each way: Next parses
// requests out of what is buffered, without copying, until it reports that it needs more; Fill reads from the network.
// The arguments returned by Next are parts of the read buffer. They are valid, together, until the next Fill.
//
// # Memory
//
// No byte of memory is taken because of a claim. A count or length is compared with Limits first, and then the buffer grows with
// what really arrives, at most to twice that. A Reader holds at most Limits.MaxRequestBytes and a little, plus for each argument 16
// bytes while its request is being read and 24 bytes until the next Fill; between requests it holds at most a small buffer. All of
// this beyond a base of some 7 KiB per Reader is charged to the Budget, shared by many readers, before it is allocated. What was
// replaced while growing waits for the garbage collector and is not charged.
//
// # Replies
//
// Reply is an append-only buffer with one method per kind of value; where the versions differ (nulls, maps, sets, verbatim text) it
// writes what the client's version knows.
//
// Readers and replies belong to one goroutine at a time; Budget is safe for concurrent use.
package resp
