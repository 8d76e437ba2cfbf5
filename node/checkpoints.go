package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"replicanode/checkpoint"
)

// CheckpointVerification says what reading one checkpoint found.
type CheckpointVerification struct {
	Partition uint32 `json:"partition"`
	Decree    uint64 `json:"decree"`
	Entries   uint64 `json:"entries"`
	Bytes     int64  `json:"bytes"`
	// Problem names what is damaged; empty when all is well.
	Problem string `json:"problem,omitempty"`
}

// CheckpointStore is the store of a data folder's checkpoints. The node may run or not.
func CheckpointStore(dataDir string) (*checkpoint.Store, error) {
	if _, err := ReadIdentity(dataDir); err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dataDir, err)
	}
	return checkpoint.NewStore(nil, filepath.Join(dataDir, checkpointsDir)), nil
}

// ListCheckpoints lists the checkpoints in a data folder, of one partition or (nil) of all.
func ListCheckpoints(dataDir string, partition *uint32) ([]checkpoint.Info, error) {
	store, err := CheckpointStore(dataDir)
	if err != nil {
		return nil, err
	}
	ids, err := selectPartitions(store, partition)
	if err != nil {
		return nil, err
	}
	infos := []checkpoint.Info{}
	for _, id := range ids {
		list, err := store.List(id)
		if err != nil {
			return nil, fmt.Errorf("list checkpoints of partition %d: %w", id, err)
		}
		infos = append(infos, list...)
	}
	return infos, nil
}

func selectPartitions(store *checkpoint.Store, partition *uint32) ([]uint32, error) {
	if partition != nil {
		return []uint32{*partition}, nil
	}
	return store.Partitions()
}

// VerifyCheckpoints reads every byte of the checkpoints in infos. The error joins what is damaged.
func VerifyCheckpoints(ctx context.Context, dataDir string, infos []checkpoint.Info) ([]CheckpointVerification, error) {
	store, err := CheckpointStore(dataDir)
	if err != nil {
		return nil, err
	}
	found := []CheckpointVerification{}
	var bad []error
	for _, info := range infos {
		v := CheckpointVerification{Partition: info.Partition, Decree: info.Decree}
		err := info.Err
		if err == nil {
			err = verifyOne(ctx, store, &v)
		}
		if err != nil {
			v.Problem = err.Error()
			bad = append(bad, fmt.Errorf("checkpoint of partition %d at decree %d: %w", v.Partition, v.Decree, err))
		}
		found = append(found, v)
	}
	return found, errors.Join(bad...)
}

func verifyOne(ctx context.Context, store *checkpoint.Store, v *CheckpointVerification) error {
	result, err := store.Verify(ctx, nil, v.Partition, v.Decree)
	if err != nil {
		return err
	}
	v.Entries, v.Bytes = result.Manifest.Entries, result.Bytes
	return result.Err()
}

// RestoreCheckpoints makes the new data folder to from the newest usable checkpoints in dataDir, of one partition or (nil) of all
// that have one. The folder is a cluster of its own, with a fresh id: what it writes from now on is not what the cluster that the
// checkpoints are of writes. To that cluster it is a remote that has everything up to the checkpoints. The identity is written last:
// a folder whose restoring was interrupted is not taken for a node's.
func RestoreCheckpoints(ctx context.Context, dataDir, to string, partition *uint32) ([]checkpoint.RestoredState, error) {
	id, err := ReadIdentity(dataDir)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dataDir, err)
	}
	store, err := CheckpointStore(dataDir)
	if err != nil {
		return nil, err
	}
	if err := emptyFolder(to); err != nil {
		return nil, err
	}
	ids, err := selectPartitions(store, partition)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("data folder %s has no checkpoints; make some with replicanode checkpoint create", dataDir)
	}
	var states []checkpoint.RestoredState
	for _, p := range ids {
		state, err := restoreOne(ctx, store, id, to, p)
		if err != nil {
			return states, fmt.Errorf("restore partition %d: %w", p, err)
		}
		states = append(states, state)
	}
	folder := &Folder{Path: to}
	id.ClusterID = 0
	if err := folder.initialize(id); err != nil {
		return states, err
	}
	return states, nil
}

// emptyFolder makes the folder at path, or refuses one that holds something.
func emptyFolder(path string) error {
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) > 0 {
		return &FlagError{Flag: "to", Value: path, Reason: "the folder is not empty; give an empty one or one that does not exist"}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &FlagError{Flag: "to", Value: path, Reason: err.Error()}
	}
	if err := os.MkdirAll(filepath.Join(path, partitionsDir), 0o755); err != nil {
		return fmt.Errorf("make the new data folder: %w", err)
	}
	return nil
}

func restoreOne(ctx context.Context, store *checkpoint.Store, id Identity, to string, partition uint32) (checkpoint.RestoredState, error) {
	newest, err := store.Latest(partition)
	if err != nil {
		return checkpoint.RestoredState{}, err
	}
	return store.RestoreReplica(ctx, nil, partition, newest.Decree, filepath.Join(to, partitionsDir), checkpoint.RestoreOptions{Partitions: id.Partitions})
}
