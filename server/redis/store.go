package redis

import (
	"context"
	"errors"

	"replicanode/replica"
	"replicanode/server/resp"
)

// Store is the keyspace the server serves: a fixed number of partitions, and the rule that says which one a key belongs to.
type Store interface {
	// Partitions is the number of partitions; it never changes.
	Partitions() int
	// Route returns the number of the key's partition, from 0.
	Route(key []byte) int
	// Partition returns partition i.
	Partition(i int) Partition
}

// Partition is one shard. Its methods are safe for concurrent use.
type Partition interface {
	// Propose queues op to be executed in the order of the partition's log and returns at once. When it returns nil, it calls
	// op.Execute at most once, and then op.Finish exactly once. When it returns an error, it calls neither.
	Propose(op *Op) error
	// View calls q.Read with a linearizable snapshot of the partition, before it returns.
	View(ctx context.Context, q Query) error
	// Count is the number of keys. It may take long.
	Count(ctx context.Context) (uint64, error)
}

// Query reads a snapshot.
type Query interface {
	Read(v View) error
}

// Reader is what Tx and View have in common. What it returns is valid until the Execute or Read that called it returns. Expired keys do
// not exist for it. Its methods, and those of Tx and View, are those of replica.Tx and replica.View.
type Reader interface {
	Get(key []byte) (replica.Value, bool, error)
	Stat(key []byte) (replica.Value, bool, error)
	HashGet(key, field []byte) ([]byte, bool, error)
	NowMs() uint64
}

// Tx is one command's access to the newest state of a partition.
type Tx interface {
	Reader
	Put(key, data []byte, expireAt uint64) error
	Delete(key []byte) (bool, error)
	Expire(key []byte, at uint64) (bool, error)
	HashPut(key, field, data []byte) (bool, error)
	HashDelete(key, field []byte) (bool, error)
}

// View is a read-only snapshot of a partition.
type View interface {
	Reader
	HashAll(key []byte, f func(field, data []byte) bool) error
	HashScan(key []byte, cursor uint64, count int, f func(field, data []byte)) (next uint64, err error)
	Scan(cursor uint64, count int, f func(key []byte, kind replica.Kind)) (next uint64, err error)
}

const wrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"

// storeError writes the reply for a command that the store did not execute, or not to its end. The codes are those after which
// clients try again when that may help (TRYAGAIN, LOADING, READONLY), and others when it does not or might apply a command twice.
func (s *Server) storeError(w *resp.Reply, err error) {
	var notLeader *replica.NotLeaderError
	var failed *replica.FailedError
	var bug *replica.PanicError
	switch {
	case errors.Is(err, replica.ErrWrongType):
		w.Error(wrongType)
	case errors.Is(err, replica.ErrBusy), errors.Is(err, replica.ErrBacklog):
		w.Error("TRYAGAIN " + err.Error())
	case errors.Is(err, replica.ErrNotReady):
		w.Error("LOADING " + err.Error())
	case errors.As(err, &notLeader):
		w.Error("READONLY " + err.Error())
	case errors.As(err, &failed):
		w.Error("MISCONF " + err.Error())
	case errors.Is(err, replica.ErrNoSpace):
		w.Error(oom(err, s.opts.DiskFull))
	case errors.As(err, &bug):
		w.Error("ERR internal error")
	default:
		w.Error("ERR " + err.Error())
	}
}

// oom is the reply to a write for which the disk has no room. An error that does not say which disk is described by say.
func oom(err error, say func() string) string {
	var known *replica.NoSpaceError
	if say == nil || errors.As(err, &known) {
		return "OOM " + err.Error()
	}
	return "OOM " + say()
}
