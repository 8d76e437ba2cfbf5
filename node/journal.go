package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/plog"
	"replicanode/replica"
)

// newSyncer returns what writes and syncs the private logs of one data folder, with the folder's journal, which is brought back to the logs
// before: none of them is open yet.
func (n *Node) newSyncer(dataDir string, partitions []uint32, fs vfs.FS, m *plog.Metrics) (*plog.Syncer, error) {
	dir := filepath.Join(dataDir, plog.JournalDir)
	j, r, err := plog.OpenJournal(dir, plog.JournalOptions{
		FS:         fs,
		Bytes:      n.opts.Storage.LogJournalBytes,
		LogDir:     logDirs(dataDir),
		Partitions: partitions,
		AcceptLoss: n.opts.AcceptJournalLoss,
		Logger:     n.opts.Logger,
		Metrics:    m,
	})
	if err != nil {
		return nil, journalHint(dir, err)
	}
	if r.Blocks > 0 || r.Damage != nil {
		n.opts.Logger.Info("journal of the private logs brought back", "dir", dir, "blocks", r.Blocks, "entries", r.Entries, "bytes", r.Bytes,
			"logs", r.Logs, "skipped", r.Skipped, "seconds", r.Took.Seconds(), "damaged", r.Damage != nil)
	}
	return plog.NewSyncer(plog.SyncerOptions{Workers: n.opts.Storage.SyncWorkers, Journal: j, Metrics: m}), nil
}

// journalHint says what to do about a journal that was not brought back.
func journalHint(dir string, err error) error {
	return fmt.Errorf("bring back the journal of the private logs: %w; put the folder %s back as it was last, or restore the node from checkpoints; --accept-journal-loss starts without the acknowledged writes that only the lost part holds", err, dir)
}

// logDirs returns where the private logs of a data folder are.
func logDirs(dataDir string) func(uint32) string {
	return func(partition uint32) string {
		return filepath.Join(dataDir, partitionsDir, replica.PartitionDir(partition), replica.LogDir)
	}
}

// settleJournal brings the journal of a stopped node's data folder back to the private logs, so that the folder of a partition can be taken out of its
// place and put back later with all it had. If that folder is gone or damaged, the journal does not wait for it any more. The data folder must be locked.
func settleJournal(dataDir string, partitions []uint32, partition uint32) error {
	dir := filepath.Join(dataDir, plog.JournalDir)
	j, _, err := plog.OpenJournal(dir, plog.JournalOptions{Bytes: -1, LogDir: logDirs(dataDir), Partitions: partitions, LetGo: []uint32{partition}})
	var damage *plog.ErrCorrupt
	switch {
	case errors.As(err, &damage):
		return fmt.Errorf("bring back the journal of the private logs: %w; start the node and stop it before, if need be with --accept-journal-loss", err)
	case err != nil:
		return fmt.Errorf("bring back the journal of the private logs: %w", err)
	}
	return plog.NewSyncer(plog.SyncerOptions{Journal: j}).Stop(context.Background())
}
