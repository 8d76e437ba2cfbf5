package plog

import (
	"cmp"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Limits of the format and of Options.
const (
	// MaxBatchBytes bounds the encoded size of one Append.
	MaxBatchBytes = 256 << 20
	// MinSegmentBytes and MaxSegmentBytes bound Options.SegmentBytes.
	MinSegmentBytes = 4 << 10
	MaxSegmentBytes = 1 << 30
	// maxSegments bounds the manifest.
	maxSegments = 1 << 20
	// firstSegmentBytes is the size of a new log's first segment, segmentGrowth how many times larger each next one may be.
	firstSegmentBytes = 512 << 10
	segmentGrowth     = 4
)

// Options tune one log. The zero value is usable.
type Options struct {
	// FS is where the log lives. Nil: the operating system's files.
	FS vfs.FS
	// Syncer writes and syncs. Nil: the log runs one of its own, stopped by Close.
	Syncer *Syncer
	// SegmentBytes is the size of a segment file, MinSegmentBytes..MaxSegmentBytes. 0: 16 MiB. A new log begins with a segment of
	// at most 512 KiB, and each one after it is at most four times as large as the one before: filling a file takes time.
	// A batch that does not fit gets a larger segment of its own.
	SegmentBytes int64
	// CacheBytes bounds the memory for recent entries, beyond those not yet durable. 0: 256 KiB, which stay in the
	// cache of a processor: with 1 MiB large batches are appended 5 % slower.
	CacheBytes int64
	// MaxPendingBytes bounds what may wait for the disk; beyond it Append fails with ErrBacklog. 0: 256 MiB.
	MaxPendingBytes int64
	// MaxSpares bounds how many released segments are kept for reuse; the others are deleted. 0: 2, negative: none.
	// While SetFrugal is on, none is.
	MaxSpares int
	// KeepExcess leaves released segments beyond MaxSpares in place, for reuse or until Trim deletes them one at a time: so their owner
	// says how fast. While SetFrugal is on they are deleted at once all the same.
	KeepExcess bool
	// MaxOpenSegments bounds the sealed segments whose file and index are kept open for random access. 0: 16.
	MaxOpenSegments int
	// BallastBytes of disk are held in reserve in the log's folder and given up when the manifest cannot be
	// written for lack of space, so that Release works on a full disk. 0: none.
	BallastBytes int64
	// Damaged is told of each damaged place once, when a read of the open log meets it; what Open meets is its error only. It is called
	// by whoever reads, be it Release or Append, so it must not block nor call the log, and its caller may hold locks. Nil: the
	// reader's error says it all.
	Damaged func(*ErrCorrupt)
	// Logger receives one line per event. Nil: discard.
	Logger *slog.Logger
	// Metrics counts, shared by the logs of a node. Nil: not counted.
	Metrics *Metrics
}

// EnsureDefaults fills what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 16<<20)
	o.CacheBytes = cmp.Or(o.CacheBytes, 256<<10)
	o.MaxPendingBytes = cmp.Or(o.MaxPendingBytes, 256<<20)
	o.MaxSpares = cmp.Or(o.MaxSpares, 2)
	o.MaxOpenSegments = cmp.Or(o.MaxOpenSegments, 16)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// sizeAfter is the size of the segment after one of a given size.
func (o *Options) sizeAfter(size int64) int64 {
	return min(o.SegmentBytes, segmentGrowth*max(size, firstSegmentBytes))
}

// Validate names the first value out of range.
func (o *Options) Validate() error {
	switch {
	case o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes:
		return fmt.Errorf("plog: segment bytes %d not in %d..%d", o.SegmentBytes, MinSegmentBytes, MaxSegmentBytes)
	case o.CacheBytes < 0:
		return fmt.Errorf("plog: cache bytes %d below 0", o.CacheBytes)
	case o.MaxPendingBytes < 0:
		return fmt.Errorf("plog: max pending bytes %d below 0", o.MaxPendingBytes)
	case o.MaxOpenSegments < 1:
		return fmt.Errorf("plog: max open segments %d below 1", o.MaxOpenSegments)
	case o.BallastBytes < 0:
		return fmt.Errorf("plog: ballast bytes %d below 0", o.BallastBytes)
	}
	return nil
}
