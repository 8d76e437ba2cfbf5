// Package plog is the private log of a replica: every mutation of a partition, and the hard state of its Raft
// group, in the order in which they were appended. It is the one thing that is synced on the write path.
//
// A Log holds the decrees [FirstIndex, LastIndex] without gaps. Append adds a batch and may replace an uncommitted
// suffix, Release forgets a prefix, Reset starts anew behind a snapshot. Entries and Term read at random with the
// semantics of Raft's Storage; a Reader streams what is durable and committed. A Syncer, one for all logs of a
// node, writes and syncs.
//
//	syncer := plog.NewSyncer(plog.SyncerOptions{})
//	syncer.Start(ctx)
//	log, err := plog.Open(dir, partition, plog.Options{Syncer: syncer})
//	err = log.Append(entries, &hardState, func(err error) { ... })
//	err = log.AppendSync(entries, &hardState)
//
// # What always holds
//
//   - A batch whose done callback got nil is there after any crash, as a whole. A batch that was not acknowledged
//     is there as a whole or not at all, and only if everything before it is.
//   - A failed sync is never repeated: the log is dead and says so (Failed). What the page cache holds after it is not
//     trusted either: Open writes the segment's header and the last group again before it syncs.
//   - A torn tail is cut. It is told from damage by proofs: a frame marked as written after everything before it was
//     synced, or the end noted in the manifest by Close. What is damaged before a proof is an *ErrCorrupt. The last group
//     written before a crash has no proof behind it: if its bytes rot before the next Open, it looks torn.
//   - Every checksum covers its place: partition, segment, offset, and for a record also decree and term. Old
//     bytes in a reused segment, or a record copied elsewhere, are not valid there.
//   - Writes go to space that was written and synced before, so that fdatasync changes no metadata.
//   - A full disk fails appends with ErrDiskFull and leaves the log as if they had not been made: what a short write left
//     behind the end is erased before the failure is reported.
//
// # Faults assumed
//
// A crash at any instruction. Power loss: of what was not synced, each sector of 512 bytes is old or new, in
// any combination. Rot of any bit of any file. A rename is atomic, and durable after a sync of its folder. Two
// processes do not open the same folder: the node holds a lock.
//
// # Files
//
//	MANIFEST                the durable description; replaced as a whole (written aside, synced, renamed, folder synced)
//	0000000000000001.seg    segments, named by sequence number in hexadecimal; numbers are never used for other content
//	BALLAST                 space in reserve, if configured
//	MANIFEST.tmp            a manifest being written  } removed by Open
//	prepare.tmp             a segment being filled    }
//
// A .seg file that the manifest does not name is a spare. The next segment is prepared ahead: a spare renamed, or a new
// file written full of zeros and synced. While SetFrugal is on there is neither: released segments are deleted, and each new one
// is made when it is needed. All integers are little endian; all checksums are CRC32C.
//
// # Segment
//
//	offset  size  field
//	     0     4  checksum of bytes 4..511
//	     4     8  magic "RPLOGSG1"
//	    12     4  format version, 1
//	    16     4  partition
//	    20     8  sequence number
//	    28     8  generation of the manifest that made it the active segment
//	    36     8  first decree
//	    44     8  time of creation, nanoseconds since 1970
//	    52   460  zero
//	   512        frames, without gaps
//
// The header is written together with the first frames; by Reset it is written and synced before them, if there is room. Its
// generation shows when the manifest was replaced by an older one: a segment newer than the manifest proves it.
//
// # Frame
//
// A batch is one frame per term among its entries, usually one.
//
//	offset  size  field
//	     0     4  checksum of the rest of the header
//	     4     4  magic "PRFM": lets the search for proofs skip through arbitrary bytes
//	     8     4  link: chain value of the frame before
//	    12     4  digest of the records' checksums: binds the records to the header
//	    16     4  bytes of the records
//	    20     4  number of records, may be 0
//	    24     8  decree of the first record
//	    32     8  term of all records
//	    40     1  flags: 1 a hard state follows, 2 the batch goes on in the next frame,
//	              4 everything before this frame in this segment was synced before it was written
//	    41     3  session: random for each Open, changed after each failed write
//	    44    24  hard state, if flag 1: term, vote, commit
//	 44/68        records
//
// The chain value of a frame is the checksum of its header without flag 4, which is set when the group is written. Link
// and session keep a frame that survived from an earlier attempt at the same place from being taken for the
// continuation of a later one. The first frame of a segment links to the low half of the segment's key.
//
// # Record
//
//	offset  size  field
//	     0     4  checksum of the rest
//	     4     4  bytes of the data
//	     8     1  type, opaque
//	     9        data
//
// Decree and term follow from the frame.
//
// # Checksums
//
// Each starts from a value that stands for its place instead of zero. With spread the finalizer of splitmix64 and all
// arithmetic modulo 2^64:
//
//	key    = spread(spread(partition + 0x9e3779b97f4a7c15) xor sequence number)
//	header, frame at offset o:  high half of spread(key xor o)
//	record at offset o:         x = key + o*0x9e3779b97f4a7c15 + decree*0xc2b2ae3d27d4eb4f + term*0x165667b19e3779f9
//	                            x = x xor x>>32; high half of x*0xd6e8feb86659fd93
//	digest of a frame:          d = 0; for each record: d = rotl(d, 5)*0x9e3779b1 xor checksum
//
// # Manifest
//
//	offset  size  field
//	     0     8  magic "RPLOGMN1"
//	     8     4  format version, 1
//	    12     4  partition
//	    16     8  generation, one more each time
//	    24    16  base decree (FirstIndex-1), its term
//	    40    24  hard state when it was written
//	    64     8  sequence number of the active segment
//	    72     8  its first decree
//	    80     8  its size
//	    88     8  the offset up to which it was synced at least; at the end of the log after Close
//	    96    16  cut: a decree, and the term of the one before; 0 for none
//	   112     8  number of sealed segments
//	   120    64  each: sequence number, first and last decree, their terms, end, size (8 bytes each),
//	              chain value at the end (4), zero (4)
//	          4   checksum of everything before
//
// # Crash cases
//
// Rotation: the old segment is synced; the manifest seals it and names the new one; header and frames are written to
// the new one and synced. Before the manifest: the new file is a spare. After it: the active segment is empty, its header
// not valid.
//
// Replacing a suffix from decree c on: always into a new segment. The manifest announces the cut; then the batch is
// written and synced; then a manifest without the cut is written and the segments that fell out become spares. The cut holds if
// and only if the active segment has a whole batch, so it is atomic with the batch.
//
// Release: the manifest with the new base and without the segments before it; then they become spares.
//
// Reset: the manifest with the new base, no sealed segments, and a new active one; then its header.
//
// # Locks
//
// Log.ioMu is held by whoever changes files (a group commit, Release, Reset, Close), Log.mu for the state in memory and never
// during a read, write or sync. Order: ioMu, mu, then the leaf locks of files and Syncer. done callbacks run
// under ioMu, on a worker of the Syncer or in whoever commits in place: AppendSync, Reset, Close.
package plog
