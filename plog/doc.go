// Package plog is the private log of a replica: every mutation of a partition, and the hard state of its Raft
// group, in the order in which they were appended. It is the one thing that is synced on the write path.
//
// A Log holds the decrees [FirstIndex, LastIndex] without gaps. Append adds a batch and may replace an uncommitted
// suffix, Release forgets a prefix, Reset starts anew behind a snapshot. Entries and Term read at random with the
// semantics of Raft's Storage; a Reader streams what is durable and committed. A Syncer, one for all logs of a
// node, writes and syncs.
//
//	journal, report, err := plog.OpenJournal(dir, plog.JournalOptions{LogDir: ...}) // optional
//	syncer := plog.NewSyncer(plog.SyncerOptions{Journal: journal})
//	syncer.Start(ctx)
//	log, err := plog.Open(dir, partition, plog.Options{Syncer: syncer})
//	err = log.Append(entries, &hardState, func(err error) { ... })
//	err = log.AppendSync(entries, &hardState)
//
// # What always holds
//
//   - A batch whose done callback got nil is there after any crash, as a whole, once the journal was brought back. A batch that was not acknowledged
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
//	     8     4  format version, 3
//	    12     4  partition
//	    16     8  generation, one more each time
//	    24    16  base decree (FirstIndex-1), its term
//	    40    24  hard state when it was written
//	    64     8  sequence number of the active segment
//	    72     8  its first decree
//	    80     8  its size
//	    88     8  the offset up to which it was synced at least; at the end of the log after Close
//	    96    16  cut: a decree, and the term of the one before; 0 for none
//	   112     8  id of the log: random, a new one when it was opened in spite of a lost journal
//	   120     8  id of the journal that may hold what the active segment does not; 0 for none, and after Close
//	   128    16  how far that journal went at least: a generation, and where its blocks end in the file, 0 if no block was written in this process
//	   144     8  number of sealed segments
//	   152    64  each: sequence number, first and last decree, their terms, end, size (8 bytes each),
//	              chain value at the end (4), zero (4)
//	          4   checksum of everything before
//
// Versions 1 and 2 are read as well. Version 2 does not say how far the journal went: the number of segments is at 128. Version 1 has no ids either, so that the
// number of segments is at 112; some have them, which the length tells. The next manifest of the log is one of version 3, which earlier programs refuse by its number.
//
// # Journal
//
// With a journal, one fdatasync makes what was appended to many logs durable. In each round a worker of the Syncer writes the pending group of every
// waiting log to its segment, does not sync it, puts the same bytes into one block, and writes and syncs that. A group takes part if it is at
// most 64 KiB and goes on in the active segment, whose header is written. A log that waits alone, and every other group, syncs itself,
// and with it all that stands before.
//
// The file JOURNAL is written whole once and has two areas of half its size (a multiple of 4096), used in turn. Beside it can be FORGOTTEN,
// JOURNAL.tmp, a journal being made, and JOURNAL.damaged, one whose damage was accepted. The first sector of an area is its header:
//
//	offset  size  field
//	     0     4  checksum of bytes 4..511
//	     4     8  magic "RPLOGJN1"
//	    12     4  format version, 1
//	    16     8  id of the journal: random, kept when its size changes, not when damage was accepted
//	    24     8  generation: each time an area is emptied it gets the highest one so far and one
//	    32     8  bytes of an area
//	    40     4  area, 0 or 1
//	    44   468  zero
//
// From its byte 4096 on stand blocks, each at a multiple of 4096:
//
//	offset  size  field
//	     0     4  checksum of the rest, padding excepted
//	     4     4  magic "PLBK"
//	     8     4  bytes of the block without padding, at most 1 MiB
//	    12     4  number of entries
//	    16     8  number of the block in its generation, from 0
//	    24    16  generation of the area used before this one, and where its blocks end in the file; 0 for none
//	    40        entries: id of the log (8), sequence number of the segment (8), offset in it (8), partition (4), bytes (4), and these bytes
//
// The checksum starts from the high half of spread(spread(spread(id + 0x9e3779b97f4a7c15) xor generation) xor offset in the file): blocks of earlier
// generations, and blocks elsewhere, are void. The checksum of the header starts from 0.
//
// Redo: before any log is opened, OpenJournal writes the entries of all blocks to their segments, if the partition's manifest has the same log
// id, names the segment and needs this journal, syncs these, and then starts a new generation of both areas. Acknowledged bytes of a segment never change and
// numbers of segments are never used again, so the order does not matter and redo can be repeated.
//
// A log with entries is away while its folder is not there, its manifest or a segment is missing or damaged, cannot be read or written, or is that of another
// partition, or while a log stands in its place that is refused itself (KindJournalMissing). Then it is not opened, the journal is not emptied, and nothing is written to it: the other logs sync themselves, and name no journal any more. That lasts until a
// start finds the log, or another log that can be opened is in its place, or it is let go (JournalOptions.LetGo, AcceptLoss). Its id goes to FORGOTTEN then, before
// the journal is emptied: if it comes back after all and needs the journal, it lacks batches and is refused (KindJournalMissing). What is let go while it can be
// brought back is whole, needs no journal and is not refused.
//
// A log opened in spite of a lost journal gets a new id, durably, before anything is appended: should the lost part come back, it is not written over that. A journal
// whose damage was accepted is followed by one with another id: a log that still names the damaged one when it comes back can lack batches.
//
// FORGOTTEN is replaced as a whole, like a manifest:
//
//	offset  size  field
//	     0     4  checksum of the rest, from 0
//	     4     8  magic "RPLOGJF1"
//	    12     4  format version, 1
//	    16     8  id of the journal; of another one the list means nothing
//	    24     8  number of logs, at most 4096
//	    32     8  each: id of the log, the oldest first, which is left out when there are more
//
// Each manifest that names the journal says how far it went, by a block that was synced before. Before a log's first bytes go into the journal in a process, its
// manifest names a generation of that process. So an older copy of the journal in its place, or one with a damaged end, is noticed (KindJournalStale) before anything is
// written: if it is from before the process that wrote last, by every log that wrote; if it is from the time of that process, by every log whose manifest was
// written after the journal went on. When none was, the copy cannot be told from the journal.
//
// What is acknowledged and rests on the journal alone is always in the active segment: it is synced before a manifest
// seals it or says how far it was synced (rotation, replacing a suffix, Release, Reset, Close). "Synced" in flag 4 and in the manifest is what holds after redo.
//
// An area is emptied when it is full: every log with bytes in it has its active segment synced, then the header gets a new generation. While neither
// area has room, logs sync themselves. An area with bytes of a dead log is not emptied before the next start.
//
// The first block that is not valid ends an area. It is torn, never acknowledged, unless it is proven: a valid block of the generation stands behind it, or the other
// area tells of it. Then, and when a header is not whole, the journal is damaged (KindJournal) and nothing is opened. As in a log, the very last block has no proof
// behind it. A log whose manifest names a journal that was not brought back is not opened either (KindJournalMissing).
//
// A failed write or sync of the journal kills the logs of that round, as their own failed sync would; the others sync themselves from then on. A journal without
// space is given up, too, but its logs sync their segments and live.
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
// A round holds the ioMu of all its logs, which it takes with TryLock only.
//
// Log.ioMu is held by whoever changes files (a group commit, Release, Reset, Close), Log.mu for the state in memory and never
// during a read, write or sync. Order: ioMu, mu, then the leaf locks of files, Syncer and Journal. done callbacks run
// under ioMu, on a worker of the Syncer or in whoever commits in place: AppendSync, Reset, Close.
package plog
