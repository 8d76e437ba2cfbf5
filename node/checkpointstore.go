package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"replicanode/checkpoint"
	"replicanode/checkpoint/s3store"
)

// StoreStatus says where the checkpoints are kept, and whether the place answers.
type StoreStatus struct {
	// Place is a folder with its absolute path, or s3://BUCKET/PREFIX.
	Place string `json:"place"`
	// Problem is why the newest requests to it were not answered, since Since; empty when they were, or nobody asked.
	Problem string     `json:"problem,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
}

// StatusOfStore is the StoreStatus of a store.
func StatusOfStore(store *checkpoint.Store) StoreStatus {
	st := StoreStatus{Place: place(store)}
	if since, err := store.Trouble(); err != nil {
		st.Problem, st.Since = err.Error(), &since
	}
	return st
}

// place is where a store is, as StoreStatus says it.
func place(store *checkpoint.Store) string {
	root := store.Root()
	if strings.HasPrefix(root, s3store.Scheme) {
		return root
	}
	if path, err := realPath(root); err == nil {
		return path
	}
	return root
}

// StorePlace is the StoreStatus.Place of a location as Options.CheckpointStore says it.
func StorePlace(location string) (string, error) {
	store, closeStore, err := OpenCheckpointStore(nil, location)
	if err != nil {
		return "", err
	}
	return place(store), closeStore()
}

// CheckpointVerification says what reading one checkpoint found.
type CheckpointVerification struct {
	Partition uint32 `json:"partition"`
	Decree    uint64 `json:"decree"`
	Entries   uint64 `json:"entries"`
	Bytes     int64  `json:"bytes"`
	// Problem names what is damaged; empty when all is well.
	Problem string `json:"problem,omitempty"`
}

// foldersStore is the store of a node's checkpoints in its data folders: that of the first. The node may run or not. Not all of the
// folders need to be given.
func foldersStore(dataDirs []string) (*checkpoint.Store, error) {
	elsewhere := ""
	for _, dir := range dataDirs {
		file, err := readNodeFile(dir)
		if err != nil {
			return nil, about(dir, err)
		}
		if file.Set == nil || file.Set.Folders[0].ID == file.Folder {
			return localStore(dir), nil
		}
		elsewhere = file.Set.Folders[0].Path
	}
	return nil, fmt.Errorf("--data-dir %s: the node's checkpoints are in its first data folder; give --data-dir %s", strings.Join(dataDirs, ","), elsewhere)
}

// localStore keeps checkpoints in a data folder.
func localStore(dataDir string) *checkpoint.Store {
	return checkpoint.NewStore(nil, filepath.Join(dataDir, checkpointsDir))
}

// OpenCheckpointStore is the store at a location as Options.CheckpointStore says it, or with "" that of the data folders. closeStore ends
// what it holds.
func OpenCheckpointStore(dataDirs []string, location string) (store *checkpoint.Store, closeStore func() error, err error) {
	none := func() error { return nil }
	if err := validateStore(location); err != nil {
		return nil, none, err
	}
	switch {
	case location == "":
		store, err = foldersStore(dataDirs)
		return store, none, err
	case !strings.HasPrefix(location, s3store.Scheme):
		return checkpoint.NewStore(nil, location), none, nil
	}
	l, err := s3store.Parse(location)
	if err != nil {
		return nil, none, err
	}
	b, err := s3store.Open(l)
	if err != nil {
		return nil, none, fmt.Errorf("open the checkpoint store: %w", err)
	}
	return checkpoint.NewStoreAt(b), b.Close, nil
}

// validateStore reads a location of checkpoints. What may hold a secret is not repeated.
func validateStore(location string) error {
	shown, rest, remote := strings.Cut(location, "://")
	if !remote {
		return nil
	}
	if _, err := s3store.Parse(location); err != nil {
		bucket, _, _ := strings.Cut(rest, "/")
		if strings.Contains(bucket, "@") || strings.Contains(bucket, "?") {
			bucket = "…"
		}
		return &FlagError{Flag: "checkpoint-store", Value: shown + "://" + bucket, Reason: err.Error()}
	}
	return nil
}

// ListCheckpoints lists the checkpoints in a store, of one partition or (nil) of all, the oldest of each partition first. A partition without any is an error.
func ListCheckpoints(ctx context.Context, store *checkpoint.Store, partition *uint32) ([]checkpoint.Info, error) {
	ids, err := store.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	if partition != nil {
		if !slices.Contains(ids, *partition) {
			return nil, noCheckpoints(store, *partition, ids)
		}
		ids = []uint32{*partition}
	}
	infos := []checkpoint.Info{}
	for _, id := range ids {
		list, err := store.List(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("list checkpoints of partition %d: %w", id, err)
		}
		infos = append(infos, checkpoint.ByAge(list)...)
	}
	if partition != nil && len(infos) == 0 {
		return nil, noCheckpoints(store, *partition, nil)
	}
	return infos, nil
}

func noCheckpoints(store *checkpoint.Store, partition uint32, have []uint32) error {
	hint := "there are none at all"
	if n := len(have); n > 0 {
		hint = fmt.Sprintf("there are some of partitions %d to %d", have[0], have[n-1])
	}
	return fmt.Errorf("partition %d has no checkpoint in %s: %w; %s", partition, store.Root(), checkpoint.ErrNotFound, hint)
}

// VerifyCheckpoints reads every byte of the checkpoints in infos, parents before their children. The error joins what is damaged, and
// what is built on that.
func VerifyCheckpoints(ctx context.Context, store *checkpoint.Store, infos []checkpoint.Info) ([]CheckpointVerification, error) {
	found := []CheckpointVerification{}
	var bad []error
	type copied struct {
		partition uint32
		decree    uint64
	}
	damaged := make(map[copied]bool)
	for _, info := range infos {
		v := CheckpointVerification{Partition: info.Partition, Decree: info.Decree}
		err := info.Err
		if err == nil {
			err = verifyOne(ctx, store, &v)
		}
		if ctx.Err() != nil {
			return found, context.Cause(ctx)
		}
		if err == nil && damaged[copied{info.Partition, info.Manifest.Parent}] {
			err = fmt.Errorf("it is built on the damaged one at decree %d", info.Manifest.Parent)
		}
		damaged[copied{info.Partition, info.Decree}] = err != nil
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

// VerifyNodeCheckpoints reads the manifests of the checkpoints of the whole node, and those that they name. The error joins what is damaged or
// incomplete.
func VerifyNodeCheckpoints(ctx context.Context, store *checkpoint.Store) error {
	infos, err := store.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("list checkpoints of the node: %w", err)
	}
	var bad []error
	for _, info := range infos {
		if info.Err != nil {
			bad = append(bad, fmt.Errorf("checkpoint %s of the node: %w", info.Name, info.Err))
		}
	}
	return errors.Join(bad...)
}

// pruneCheckpoints removes the checkpoints of one partition, or (nil) of all and of the whole node, that the retention lets go.
// Nothing else may write to the store meanwhile.
func pruneCheckpoints(ctx context.Context, store *checkpoint.Store, partition *uint32, r checkpoint.Retention) (checkpoint.Pruned, error) {
	var pruned checkpoint.Pruned
	ids, err := store.Partitions(ctx)
	if err != nil {
		return pruned, err
	}
	if partition != nil {
		if !slices.Contains(ids, *partition) {
			return pruned, noCheckpoints(store, *partition, ids)
		}
		ids = []uint32{*partition}
	} else if pruned.Nodes, err = store.PruneNodes(ctx, r, time.Now()); err != nil {
		return pruned, err
	}
	for _, id := range ids {
		removed, err := store.Prune(ctx, nil, id, r, time.Now())
		pruned.Add(id, removed)
		if err != nil {
			return pruned, fmt.Errorf("prune checkpoints of partition %d: %w", id, err)
		}
	}
	return pruned, nil
}

// ObsoleteCheckpoints says what pruneCheckpoints would remove.
func ObsoleteCheckpoints(ctx context.Context, store *checkpoint.Store, partition *uint32, r checkpoint.Retention) (checkpoint.Pruned, error) {
	if partition != nil {
		ids, err := store.Partitions(ctx)
		if err != nil {
			return checkpoint.Pruned{}, err
		}
		if !slices.Contains(ids, *partition) {
			return checkpoint.Pruned{}, noCheckpoints(store, *partition, ids)
		}
	}
	return store.Obsolete(ctx, partition, r, time.Now())
}

// PruneStopped is pruneCheckpoints for the data folders of a stopped node, which it locks meanwhile.
func PruneStopped(ctx context.Context, dataDirs []string, store *checkpoint.Store, partition *uint32, r checkpoint.Retention) (_ checkpoint.Pruned, err error) {
	folder, err := OpenExisting(dataDirs)
	if err != nil {
		return checkpoint.Pruned{}, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	return pruneCheckpoints(ctx, store, partition, r)
}
