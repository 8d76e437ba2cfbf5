package replica

import (
	"errors"
	"fmt"
)

var (
	// ErrBusy refuses a command because the partition's queue is full.
	ErrBusy = errors.New("partition is busy: its queue is full")
	// ErrStopped refuses or ends work because the host is stopping or was never started.
	ErrStopped = errors.New("replica host is stopped")
	// ErrNotReady refuses work because the partition is still opening, replaying its log or electing a leader.
	ErrNotReady = errors.New("partition is not ready yet")
	// ErrResultUnknown ends a command whose entry was proposed and may or may not be committed: leadership was lost, the
	// partition failed or was stopped, or the private log takes nothing for now (ErrNoSpace, ErrBacklog). The write may
	// still take effect.
	ErrResultUnknown = errors.New("result unknown: the write was proposed, but the partition lost its leader, was stopped or ran out of disk before the write was known to be committed; it may still take effect")
	// ErrNoSpace is wrapped by a NoSpaceError.
	ErrNoSpace = errors.New("no space left on the data disk: writes are refused")
	// ErrBacklog refuses a write because too much waits for the disk of the private log, which is slower than what is
	// written. Nothing of it takes effect. Reads go on; writes resume by themselves once the disk has caught up.
	ErrBacklog = errors.New("the data disk is too slow for what is written: writes are refused until it has caught up")
	// ErrWrongType is what a hash operation meets on a string, or the other way round.
	ErrWrongType = errors.New("operation against a key holding the wrong kind of value")
	// ErrReleased refuses to read or release log entries that are not there any more, or not durable yet.
	ErrReleased = errors.New("log position is released or not yet durable")
)

// NotLeaderError refuses work that only the group's leader does.
type NotLeaderError struct {
	// Leader is the node id of the leader, 0 if unknown.
	Leader uint64
}

func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return "not the leader of this partition; the leader is unknown"
	}
	return fmt.Sprintf("not the leader of this partition; node %d is", e.Leader)
}

// NoSpaceError refuses a write because the disk of the partitions is full, or nearly so. Nothing of it takes effect. Reads go on;
// writes resume by themselves once there is space.
type NoSpaceError struct {
	// Path is the folder of the partitions, FreeBytes what was free when its disk was last asked.
	Path      string
	FreeBytes int64
	// ResumeBytes is the free space at which writes resume at the latest.
	ResumeBytes int64
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no space left on the data disk: %d bytes are free on the disk of %s, writes are refused until %d are",
		e.FreeBytes, e.Path, e.ResumeBytes)
}

// Is makes errors.Is(err, ErrNoSpace) true.
func (e *NoSpaceError) Is(target error) bool { return target == ErrNoSpace }

// FailedError refuses work on a partition that has stopped for good in this process.
type FailedError struct {
	Partition uint32
	// Cause is why it stopped, for example a failed sync or a corrupt log.
	Cause error
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("partition %d has failed: %v", e.Partition, e.Cause)
}

func (e *FailedError) Unwrap() error { return e.Cause }

// MissingError is why a partition of Options.MustExist fails.
type MissingError struct {
	// Path is what is not there, or holds nothing.
	Path string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s has vanished: the partition has served before and must not start empty; put the folder back, restore a checkpoint, or drop the replica", e.Path)
}

// TooLargeError refuses a write beyond a size limit.
type TooLargeError struct {
	// What is "key", "field", "value", "hash field value", "command" or "batch".
	What         string
	Bytes, Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %d bytes exceeds the limit of %d", e.What, e.Bytes, e.Limit)
}

// PanicError is what a command finishes with when its Execute panicked. Nothing of the command took effect.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("command panicked: %v", e.Value) }

// GapError refuses a duplicated batch that does not continue where the partition's progress ends.
type GapError struct {
	// Have is the source decree up to which everything is applied here; the next batch must have Prev <= Have.
	Have uint64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("duplicated batch leaves a gap after source decree %d", e.Have)
}

// ClockSkewError refuses a duplicated batch whose timestamps are too far in the future of this node's clock:
// accepting it would drag this cluster's clock along.
type ClockSkewError struct {
	AheadSeconds, LimitSeconds float64
}

func (e *ClockSkewError) Error() string {
	return fmt.Sprintf("duplicated batch is stamped %.0f s in the future; the limit is %.0f s", e.AheadSeconds, e.LimitSeconds)
}
