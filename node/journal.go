package node

import (
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/plog"
	"replicanode/replica"
)

// newSyncer returns what writes and syncs the private logs of one data folder, with the folder's journal, which is brought back to the logs
// before: none of them is open yet.
func (n *Node) newSyncer(dataDir string, fs vfs.FS, m *plog.Metrics) (*plog.Syncer, error) {
	dir := filepath.Join(dataDir, plog.JournalDir)
	j, r, err := plog.OpenJournal(dir, plog.JournalOptions{
		FS:    fs,
		Bytes: n.opts.Storage.LogJournalBytes,
		LogDir: func(partition uint32) string {
			return filepath.Join(dataDir, partitionsDir, replica.PartitionDir(partition), replica.LogDir)
		},
		AcceptLoss: n.opts.AcceptJournalLoss,
		Logger:     n.opts.Logger,
		Metrics:    m,
	})
	if err != nil {
		return nil, fmt.Errorf("bring back the journal of the private logs: %w; put the folder %s back from before, or restore the node from checkpoints; --accept-journal-loss starts without the acknowledged writes that only the damaged part holds", err, dir)
	}
	if r.Blocks > 0 || r.Damage != nil {
		n.opts.Logger.Info("journal of the private logs brought back", "dir", dir, "blocks", r.Blocks, "entries", r.Entries, "bytes", r.Bytes,
			"logs", r.Logs, "skipped", r.Skipped, "seconds", r.Took.Seconds(), "damaged", r.Damage != nil)
	}
	return plog.NewSyncer(plog.SyncerOptions{Workers: n.opts.Storage.SyncWorkers, Journal: j, Metrics: m}), nil
}
