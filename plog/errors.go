package plog

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrCompacted is returned for a decree that was released, or replaced by a snapshot (Reset).
	ErrCompacted = errors.New("plog: decree is already released")
	// ErrUnavailable is returned for a decree that the log does not hold (yet).
	ErrUnavailable = errors.New("plog: decree is not in the log")
	// ErrClosed is returned by every call after Close, and by Append after the Syncer was stopped.
	ErrClosed = errors.New("plog: closed")
	// ErrDiskFull says that there was no room to write. Nothing of the failed batch, nor of any batch appended
	// after it and not yet durable, is in the log, and the log stays usable: append again once space was freed. Only where a
	// full disk does not even let bytes be replaced (copy on write), and the process ends before it does, the first of
	// the refused batches may be found, whole and in order, when the log is opened again.
	ErrDiskFull = errors.New("plog: disk full")
	// ErrFailed wraps the reason why a log is dead: a write or a sync failed. It is never retried.
	ErrFailed = errors.New("plog: log failed")
	// ErrOrder is returned by Append for entries that are not contiguous, start beyond LastIndex+1, or whose terms go back.
	ErrOrder = errors.New("plog: entries out of order")
	// ErrCommitted is returned by Append for entries that would replace a committed one.
	ErrCommitted = errors.New("plog: a committed decree cannot be replaced")
	// ErrTooLarge is returned by Append for a batch above MaxBatchBytes.
	ErrTooLarge = errors.New("plog: batch too large")
	// ErrBacklog is returned by Append while more than Options.MaxPendingBytes wait for the disk.
	ErrBacklog = errors.New("plog: too much waits for the disk")
	// ErrVersion is returned by Open, Verify and Dump for a folder with a file of another version of the format.
	ErrVersion = errors.New("plog: unknown format version")
)

// unknownVersion refuses a file of a version of its format that is none of first..last.
func unknownVersion(found uint32, file string, first, last uint32) error {
	known := fmt.Sprintf("version %d", last)
	if first < last {
		known = fmt.Sprintf("versions %d to %d", first, last)
	}
	return fmt.Errorf("%w %d in %s: this program reads %s; run the one that wrote it", ErrVersion, found, file, known)
}

// Kind says what is wrong at a damaged place.
type Kind string

// The kinds of damage.
const (
	KindManifest         Kind = "manifest"          // the manifest is unreadable or contradicts itself
	KindManifestMissing  Kind = "manifest_missing"  // there are segments, but no manifest
	KindManifestStale    Kind = "manifest_stale"    // the manifest is older than a segment
	KindPartition        Kind = "partition"         // the folder belongs to another partition
	KindSegmentMissing   Kind = "segment_missing"   // a segment named by the manifest is not there
	KindSegmentHeader    Kind = "segment_header"    // the first bytes of a segment are not those of this segment
	KindSegmentTruncated Kind = "segment_truncated" // a segment is shorter than what was synced into it
	KindFrame            Kind = "frame"             // a frame header does not match its checksum or place
	KindLink             Kind = "link"              // a frame does not follow the frame before it
	KindRecord           Kind = "record"            // a record does not match its checksum or place
	KindOrder            Kind = "order"             // decrees are not contiguous
	KindJournal          Kind = "journal"           // a header or a block of the journal is not what was written
	KindJournalMissing   Kind = "journal_missing"   // the journal that may hold the log's last batches was not brought back
	KindJournalStale     Kind = "journal_stale"     // the journal went further once: it is an older copy, or its end is damaged
)

// kinds are all kinds of damage.
var kinds = [...]Kind{KindManifest, KindManifestMissing, KindManifestStale, KindPartition, KindSegmentMissing, KindSegmentHeader,
	KindSegmentTruncated, KindFrame, KindLink, KindRecord, KindOrder, KindJournal, KindJournalMissing, KindJournalStale}

// ErrCorrupt names a damaged place: bytes which were synced once and are no longer what was written.
// Use errors.As with a *ErrCorrupt.
type ErrCorrupt struct {
	Partition uint32
	Segment   uint64 // sequence number of the segment, 0 for the manifest
	Offset    int64  // byte offset in that file
	Decree    uint64 // first decree that is lost there, 0 when unknown
	Kind      Kind
	File      string `json:",omitempty"` // path of the damaged file, for a journal only
	Found     Reach  `json:",omitzero"`  // how far the journal goes, for KindJournalStale only
	Known     Reach  `json:",omitzero"`  // how far it went when the partition's manifest was written, for KindJournalStale only
}

// Error implements error.
func (e *ErrCorrupt) Error() string {
	switch e.Kind {
	case KindJournal:
		return fmt.Sprintf("plog: corrupt %s: %s, offset %d", e.Kind, e.File, e.Offset)
	case KindJournalStale:
		return fmt.Sprintf("plog: corrupt %s: %s goes to generation %d, offset %d, but went to generation %d, offset %d, when the log of partition %d noted it: it is an older copy, or its end is damaged",
			e.Kind, e.File, e.Found.Generation, e.Found.End, e.Known.Generation, e.Known.End, e.Partition)
	}
	return fmt.Sprintf("plog: corrupt %s: partition %d, segment %d, offset %d, decree %d",
		e.Kind, e.Partition, e.Segment, e.Offset, e.Decree)
}

// ErrUnreachable tells of a log to which the journal's batches of it cannot be brought back: its folder is not there, or cannot be read or written, or
// its manifest or a segment is damaged, which is an *ErrCorrupt in it.
type ErrUnreachable struct {
	Partition uint32
	Dir       string
	Err       error
}

// Error implements error.
func (e *ErrUnreachable) Error() string {
	return fmt.Sprintf("the journal holds batches of partition %d, which cannot be brought back to its log: %v", e.Partition, e.Err)
}

// Unwrap returns why it cannot be read.
func (e *ErrUnreachable) Unwrap() error { return e.Err }

// isDiskFull tells errors that go away when space is freed from all others.
func isDiskFull(err error) bool {
	return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrDiskFull)
}
