package gc

import (
	"fmt"
	"sync/atomic"
	"time"
)

// DiskStatus is what is known of one disk.
type DiskStatus struct {
	Path string `json:"path"`
	Usage
	Level Level `json:"level"`
	// WriteSeconds and SyncSeconds are how long the newest write of 4 KiB and the sync after it took.
	WriteSeconds float64 `json:"write_seconds"`
	SyncSeconds  float64 `json:"sync_seconds"`
	// ReadSeconds is how long it then took to read them.
	ReadSeconds float64 `json:"read_seconds"`
	// DroppedBytes and OtherBytes are what dropped replicas and files of no partition take.
	DroppedBytes int64             `json:"dropped_bytes"`
	OtherBytes   int64             `json:"other_bytes"`
	Partitions   []PartitionUsage  `json:"partitions"`
	Failed       bool              `json:"failed"` // cannot be used since the start; LastError says why
	Stuck        bool              `json:"stuck"`  // does not answer
	StuckSince   time.Time         `json:"stuck_since,omitzero"`
	Slow         bool              `json:"slow"`      // the newest synced write and read took longer than they may
	Errors       uint64            `json:"errors"`    // attempts at which it could not be measured
	IOErrors     uint64            `json:"io_errors"` // those among them in which a call failed, rather than took too long
	LastError    string            `json:"last_error,omitempty"`
	Measured     time.Time         `json:"measured"` // when the newest run of this disk was complete
	partitions   map[uint32]*usage // while a run collects
}

// disk is what is known of a disk, and who asks it.
type disk struct {
	DiskStatus
	dir string
	// stat is the prober of runs, pulse that of beats; nil before Start and after Stop, and
	// of a disk that cannot be used.
	stat, pulse *prober
	// errs are the newest errors of runs and beats.
	errs [2]error
	gate atomic.Pointer[error]
}

// by is who found something out: a run, which counts the bytes too, or a beat.
type by int

const (
	byRun by = iota
	byBeat
)

// StuckError refuses writes because the disk does not answer.
type StuckError struct {
	Path  string // folder on the disk
	Since time.Time
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("the disk of %s does not answer since %s; writes to it are refused until it does", e.Path, e.Since.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrNoAnswer) true.
func (e *StuckError) Is(target error) bool { return target == ErrNoAnswer }

// PartitionUsage is what one partition takes on one disk, in allocated bytes.
type PartitionUsage struct {
	Partition       uint32 `json:"partition"`
	LogBytes        int64  `json:"log_bytes"`
	DataBytes       int64  `json:"data_bytes"`
	CheckpointBytes int64  `json:"checkpoint_bytes"`
	// GarbageBytes of the above hold nothing that is needed: log files that wait for
	// their next use, and entries that the database will drop when it compacts.
	GarbageBytes int64 `json:"garbage_bytes"`
}

type usage = PartitionUsage
