package gc

import (
	"errors"

	"replicanode/plog"
)

// ErrLogClosed is why the log of a partition that has not failed is not open.
var ErrLogClosed = errors.New("the log is not open")

// LogOwner is a partition with a private log, as the replica's partitions are.
type LogOwner interface {
	ID() uint32
	// Err is why the partition does not serve, nil when it does or will.
	Err() error
	Durable() uint64
	// Log is nil while it is not open.
	Log() *plog.Log
	ReleaseLog(decree uint64) error
}

// FromOwner makes a LogPartition of a LogOwner.
func FromOwner(p LogOwner) LogPartition { return ownedLog{p} }

type ownedLog struct{ LogOwner }

// LogExtent asks the log. That of a partition which has failed is left alone.
func (l ownedLog) LogExtent() (LogExtent, error) {
	if err := l.Err(); err != nil {
		return LogExtent{}, err
	}
	log := l.Log()
	if log == nil {
		return LogExtent{}, ErrLogClosed
	}
	st := log.Stats()
	return LogExtent{First: st.First, Last: st.Last, Bytes: st.Bytes, Live: st.Live, Excess: st.Excess}, nil
}

// TrimLog deletes one file.
func (l ownedLog) TrimLog() (freed int64) {
	if log := l.Log(); log != nil && l.Err() == nil {
		return log.Trim()
	}
	return 0
}
