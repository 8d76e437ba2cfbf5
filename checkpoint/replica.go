package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"replicanode/plog"
	"replicanode/replica"
)

// FromReplica makes a Source of a partition of this node.
func FromReplica(p *replica.Partition) Source { return replicaSource{p} }

type replicaSource struct{ *replica.Partition }

// Term asks the private log, which keeps the term of its last released decree too.
func (s replicaSource) Term(decree uint64) (uint64, error) {
	log := s.Log()
	if log == nil {
		return 0, replica.ErrNotReady
	}
	return log.Term(decree)
}

// ChangedBytes implements Sizer: what the log takes for so many decrees, and what the tables hold of earlier ones.
func (s replicaSource) ChangedBytes(since uint64) uint64 {
	log, db := s.Log(), s.DB()
	if log == nil || db == nil {
		return 0
	}
	var bytes uint64
	if since == 0 {
		for _, table := range db.Tables() {
			bytes += uint64(table.UncompressedSize)
		}
		since = s.Durable()
	}
	st := log.Stats()
	if st.Last < st.First || st.Last <= since {
		return bytes
	}
	return bytes + uint64(float64(st.Live)*float64(st.Last-since)/float64(st.Last-st.First+1))
}

// RestoreReplica restores a partition into partitionsDir (DATA/partitions) so
// that a node started on it serves exactly the checkpoint's state: the database,
// and an empty private log that starts after the checkpoint's decree and term.
// The replica must run in another cluster than the one the checkpoint is of:
// its mutations after the decree are others. To that cluster it may be a remote
// that has everything up to the decree; what that cluster's remotes confirmed
// is not restored. o.DBName, o.DBOptions, o.Edit and o.Finish are set by it.
func (s *Store) RestoreReplica(ctx context.Context, turn Turn, partition uint32, decree uint64, partitionsDir string, o RestoreOptions) (RestoredState, error) {
	o.DBName, o.DBOptions, o.Edit, o.Finish = "db", replicaDBOptions, newIdentity, finishReplica
	return s.Restore(ctx, turn, partition, decree, filepath.Join(partitionsDir, fmt.Sprintf("%04d", partition)), o)
}

// newIdentity prepares the database for another cluster.
func newIdentity(state RestoredState) Edit {
	return Edit{
		Drop: replica.DroppedOnRestore,
		Put:  replica.RestoredRecords(state.ClusterID, state.Partition, state.Decree),
	}
}

// replicaDBOptions write tables as the replica's own database does.
func replicaDBOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(false).WithMetricsEnabled(false).
		WithDetectConflicts(false).WithCompression(options.None).WithBlockCacheSize(0).
		WithValueThreshold(1 << 20).WithValueLogFileSize(4 << 20)
}

// finishReplica makes the private log. Recovery replays from the greatest
// version in the tables, which must therefore be the decree the log begins after.
func finishReplica(dir string, state RestoredState) (err error) {
	if state.MaxVersion != state.Decree {
		return fmt.Errorf("the newest entry is of decree %d, not of the checkpoint's %d: this is no copy of a replica",
			state.MaxVersion, state.Decree)
	}
	log, err := plog.Open(filepath.Join(dir, "plog"), state.Partition, plog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.AppendSync(nil, &plog.HardState{Term: state.Term}); err != nil {
		return err
	}
	return log.Reset(state.Decree, state.Term)
}
