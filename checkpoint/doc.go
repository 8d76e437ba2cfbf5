// Package checkpoint makes complete, verified, self-describing copies of one
// partition at one decree, keeps the last few of them, and turns one back into
// a replica's database.
//
// # Use
//
// [Create] copies a partition that is being written to. It runs as a task on
// the long pool: between slices of about a millisecond it calls Turn.Yield,
// which charges the bytes written and gives the slot away when more urgent work
// waits. [Service] runs it periodically and on demand for every partition and
// keeps the newest few. A [Pace] bounds what all copies, and other work that asks it
// for a turn, take of the processors while clients are served. [List], [Verify] and [Restore] work on a folder of
// checkpoints, with or without a running node.
//
// # Layout and format, version 1
//
//	ROOT/0003/00000000000000004711/MANIFEST.json    partition 3 at decree 4711
//	ROOT/0003/00000000000000004711/000001.chunk
//	ROOT/0003/00000000000000004711/000002.chunk
//	ROOT/0003/tmp-...                               being made or being removed
//	ROOT/nodes/20300102T030405.006Z.json            a checkpoint of the whole node
//
// This is the layout in a folder; [Backend] says what other places must do.
// Package s3store is one.
//
// A chunk is a header, blocks, and an end block. Integers are little-endian.
//
//	header   0  8  magic "RNODECKP"
//	         8  4  format version, 1
//	        12  4  partition
//	        16  8  decree
//	        24  4  chunk number, from 1: a chunk cannot stand in for another
//	        28  4  CRC32C of bytes 0..27
//	block    0  4  raw length R, 1..131072
//	         4  4  stored length S; S = R means stored as it is, else one zstd frame
//	         8  4  CRC32C of bytes 0..7 and of the S stored bytes
//	        12  S  stored bytes
//	end      0  4  0: no block has raw length 0
//	         4  4  16
//	         8  4  CRC32C of bytes 0..7 and of the 16 bytes that follow
//	        12  8  entries in this chunk
//	        20  8  raw bytes in this chunk
//
// The raw bytes of a chunk's blocks, joined, are its entries in strictly
// ascending key order. An entry may span blocks, so that a block, and with it a
// slice of work and a reader's memory, stays small whatever the values are; it
// never spans chunks.
//
//	1        kind: 1 put, 2 delete
//	1        badger's user meta byte
//	uvarint  version: the decree that wrote the entry
//	uvarint  expiry, seconds since 1970, 0 = never
//	uvarint  key length, 1..65535
//	         key
//	uvarint  value length, 0..1 GiB     (put only)
//	         value, with its header     (put only)
//
// A full checkpoint holds puts only: for each key its newest entry at or below
// the decree, unless that entry is a delete or its expiry has passed, in which
// case no reader could see it. An incremental one holds, for each key changed
// after its parent's decree, the newest entry, or a delete.
//
// MANIFEST.json is one JSON document whose exact frame makes every flipped bit
// visible: the bytes `{"crc32c":"`, eight lower-case hexadecimal digits,
// `","body":`, the body, `}` and a newline. The digits are the CRC32C of the
// body's bytes as they stand in the file. See [Manifest] for the body.
//
// # Invariants
//
//   - A checkpoint appears whole or not at all: everything is written under a
//     temporary name, synced, read back and checked, and only then renamed, and
//     the folder that holds the name is synced. Removal is a rename first.
//   - Restoring gives, key by key, the entries the source had at the decree,
//     with their versions, expiry, user meta and value bytes.
//   - The last good checkpoint is never removed, nor one whose child remains or
//     that a checkpoint of the whole node names.
//   - Files are removed one by one, at the rate of Store.PaceRemovals.
//   - A copy makes every call to its backend without its slot.
package checkpoint
