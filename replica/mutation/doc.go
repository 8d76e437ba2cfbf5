// Package mutation is the wire format of one mutation: the data of one entry of a partition's log.
//
// A mutation is one atomic state change made of absolute values, so that replaying it is harmless. The same bytes
// are what the private log holds, what every voter applies, and what duplication ships to a remote cluster.
// The package depends on the standard library only.
//
// # Format, version 1
//
// All fixed-width integers are little endian; "uvarint" is encoding/binary's unsigned varint, in its shortest form.
// "bytes" is a uvarint length followed by that many bytes.
//
//	offset  size  field
//	0       1     format version, 1
//	1       1     kind: 1 user, 2 duplicated, 3 progress
//	2       8     timestamp (hybrid logical clock, see Timestamp)
//	10      8     id of the cluster in which the mutation was made
//	18      ...   body, by kind, up to the end of the data
//
// The body of a user mutation is a sequence of operations, possibly none:
//
//	1  put          flags(1 byte) key(bytes) value(bytes) [expire-at ms(uvarint), if flag bit 0]
//	2  delete       key(bytes)
//	3  expire       key(bytes) expire-at ms(uvarint; 0 removes the expiry) base timestamp(uvarint) base cluster(uvarint)
//	4  hash put     key(bytes) field(bytes) value(bytes)
//	5  hash delete  key(bytes) field(bytes)
//	6  now          ms(uvarint): only as the first one
//
// "now" is the time, in milliseconds since 1970, by which it was decided what had expired; without it, that of the timestamp was
// used. It is there when the timestamp is ahead of the clock on the wall, because a greater one came from another cluster.
//
// The base of an expire is the stamp of the last write of the whole key that its cluster knew: of a later life of the key it says
// nothing.
//
// The body of a duplicated mutation is one Batch:
//
//	cluster(8) partition(4) prev(uvarint) last(uvarint)
//	then, until the end: decree minus the decree before it (uvarint; the first one counts from prev), data(bytes)
//
// where every data is a user mutation, byte for byte as the source's log holds it, and prev < decree <= last.
//
// The body of a progress mutation is remote(bytes) decree(uvarint).
//
// The length is what the log entry says, and the log's checksum covers it; there is none here. A log entry without
// data (a new leader's no-op) is not a mutation. Unknown versions, kinds, operations and flag bits are refused with
// ErrFormat, never skipped: a reader that does not understand a mutation must not apply half of it.
package mutation
