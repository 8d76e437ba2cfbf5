package gc

import "replicanode/plog"

// LogOwner is a partition with a private log, as the replica's partitions are.
type LogOwner interface {
	ID() uint32
	Durable() uint64
	// Log is nil while it is not open.
	Log() *plog.Log
	ReleaseLog(decree uint64) error
}

// FromOwner makes a LogPartition of a LogOwner.
func FromOwner(p LogOwner) LogPartition { return ownedLog{p} }

type ownedLog struct{ LogOwner }

// LogExtent asks the log.
func (l ownedLog) LogExtent() (first, last uint64, bytes int64, ok bool) {
	log := l.Log()
	if log == nil {
		return 0, 0, 0, false
	}
	st := log.Stats()
	return st.First, st.Last, st.Bytes, true
}
