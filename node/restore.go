package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/checkpoint"
	"replicanode/internal/dirsync"
)

// restoringFile marks a folder that a restore is filling. It is there before anything else and goes when NODE is there: a folder
// with it and without NODE is what an interrupted restore left, and is emptied by the next one.
const restoringFile = "RESTORING"

// RestoreOptions say what RestoreCheckpoints does.
type RestoreOptions struct {
	// Store holds the checkpoints. Required.
	Store *checkpoint.Store
	// To is the new data folder: absent, empty, or left by an interrupted restore. Required.
	To string
	// Sources are data folders of the node that made the checkpoints, empty when none is at hand.
	Sources []string
	// Node restores a checkpoint of the whole node by name; "latest" the newest complete one. "": the newest usable checkpoint of each
	// partition.
	Node string
	// Partition restores one partition only; the others start empty. nil restores all, and refuses when one has no usable checkpoint.
	Partition *uint32
	// Decree restores the checkpoint of Partition at this decree, which need not be the newest one; 0: the newest usable one.
	Decree uint64
	// Partial accepts partitions without a usable checkpoint: they start empty.
	Partial bool
	// Parallel is how many partitions are restored at once. Default: the number of processors.
	Parallel int
	// Restored, if set, is told of each partition that is restored, and how many there will be.
	Restored func(state checkpoint.RestoredState, of int)
}

// RestoreCheckpoints makes a new data folder from checkpoints. The folder is a cluster of its own, with a fresh id: what it writes from
// now on is not what the cluster that the checkpoints are of writes. To that cluster it is a remote that has everything up to them. It is complete or not there: on an error everything that was written
// goes, and until the identity is written, last, no node starts on it.
func RestoreCheckpoints(ctx context.Context, o RestoreOptions) (states []checkpoint.RestoredState, err error) {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	sources := slices.Clone(o.Sources)
	if !strings.Contains(o.Store.Root(), "://") {
		sources = append(sources, o.Store.Root())
	}
	if err := outside(o.To, sources...); err != nil {
		return nil, err
	}
	id, targets, err := restoreTargets(ctx, &o)
	if err != nil {
		return nil, err
	}
	existed, err := prepareTarget(o.To)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clearTarget(o.To, existed))
		}
	}()
	if states, err = restoreAll(ctx, &o, id, targets); err != nil {
		return nil, err
	}
	id.ClusterID = 0 // a fresh one
	if id, err = newIdentity(id); err != nil {
		return nil, err
	}
	present := make([]uint32, len(states))
	for i := range states {
		present[i] = states[i].Partition
	}
	if err := writeNodeFile(o.To, nodeFile{Identity: id, MayStartEmpty: allPartitions(id.Partitions, present)}); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(o.To, restoringFile)); err != nil {
		return nil, fmt.Errorf("finish the new data folder: %w", err)
	}
	return states, dirsync.Sync(vfs.Default, o.To)
}

// outside refuses a target within what is restored from: it would be taken for a part of it.
func outside(to string, sources ...string) error {
	target, err := realPath(to)
	if err != nil {
		return &FlagError{Flag: "to", Value: to, Reason: err.Error()}
	}
	for _, source := range sources {
		real, err := realPath(source)
		if err != nil {
			return fmt.Errorf("find folder %s: %w", source, err)
		}
		if target == real || strings.HasPrefix(target, strings.TrimSuffix(real, "/")+"/") {
			return &FlagError{Flag: "to", Value: to, Reason: fmt.Sprintf("lies within %s, which is restored from; give a folder outside of it", source)}
		}
	}
	return nil
}

// realPath is the path without links; what does not exist yet is taken as it is written.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", err
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// target is one checkpoint to restore; decree 0: the partition starts empty.
type target struct {
	partition uint32
	decree    uint64
}

// restoreTargets chooses the checkpoints. The identity is that of the source, as far as it is known.
func restoreTargets(ctx context.Context, o *RestoreOptions) (Identity, []target, error) {
	id := Identity{NodeID: 1}
	if len(o.Sources) > 0 {
		var err error
		if id, err = ReadIdentity(o.Sources[0]); err != nil {
			return id, nil, err
		}
	}
	if o.Node != "" {
		return nodeTargets(ctx, o, id)
	}
	have, err := o.Store.Partitions(ctx)
	if err != nil {
		return id, nil, err
	}
	if o.Partition != nil {
		if !slices.Contains(have, *o.Partition) {
			return id, nil, noCheckpoints(o.Store, *o.Partition, have)
		}
		have = []uint32{*o.Partition}
	}
	if len(have) == 0 {
		return id, nil, fmt.Errorf("%s has no checkpoints; make some with replicanode checkpoint create", o.Store.Root())
	}
	var targets []target
	for _, p := range have {
		newest, err := o.newest(ctx, p)
		if errors.Is(err, checkpoint.ErrNotFound) && o.Partition == nil {
			continue // named below
		}
		if err != nil {
			return id, nil, err
		}
		if id.Partitions == 0 {
			id.Partitions = newest.Partitions
		}
		targets = append(targets, target{p, newest.Decree})
	}
	if o.Partition == nil && !o.Partial {
		if err := missingTargets(targets, id.Partitions); err != nil {
			return id, nil, err
		}
	}
	if len(targets) == 0 {
		return id, nil, fmt.Errorf("no partition has a usable checkpoint in %s: %w", o.Store.Root(), checkpoint.ErrNotFound)
	}
	return id, targets, nil
}

// newest is the checkpoint of a partition that is restored if not a whole node's one is.
func (o *RestoreOptions) newest(ctx context.Context, partition uint32) (*checkpoint.Manifest, error) {
	if o.Decree == 0 {
		return o.Store.Latest(ctx, partition)
	}
	infos, err := o.Store.List(ctx, partition)
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if info.Decree == o.Decree {
			return info.Manifest, info.Err
		}
	}
	return nil, fmt.Errorf("partition %d, decree %d: %w; replicanode checkpoint list shows those there are", partition, o.Decree, checkpoint.ErrNotFound)
}

// PassedBy names the checkpoints that are newer than what RestoreCheckpoints restored with the same options, and can't be used: what they hold is
// not there.
func PassedBy(ctx context.Context, o RestoreOptions, restored []checkpoint.RestoredState) (newer []error, err error) {
	if o.Node != "" && o.Node != "latest" || o.Decree != 0 {
		return nil, nil // that very one was asked for
	}
	if o.Node != "" {
		infos, err := o.Store.Nodes(ctx)
		for _, info := range slices.Backward(infos) {
			if info.Err == nil {
				break
			}
			newer = append(newer, fmt.Errorf("checkpoint %s of the node: %w", info.Name, info.Err))
		}
		return newer, err
	}
	for _, r := range restored {
		infos, err := o.Store.List(ctx, r.Partition)
		if err != nil {
			return nil, err
		}
		for _, info := range slices.Backward(checkpoint.ByAge(infos)) {
			if info.Decree == r.Decree {
				break
			}
			if info.Err != nil {
				newer = append(newer, fmt.Errorf("checkpoint of partition %d at decree %d: %w", r.Partition, info.Decree, info.Err))
			}
		}
	}
	return newer, nil
}

// missingTargets names the partitions of which there is nothing to restore.
func missingTargets(targets []target, partitions uint32) error {
	var missing []string
	for p := range partitions {
		if !slices.ContainsFunc(targets, func(t target) bool { return t.partition == p }) {
			missing = append(missing, fmt.Sprint(p))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: no usable checkpoint of partition %s; --partial restores the others and lets these start empty",
		checkpoint.ErrNotFound, strings.Join(missing, ", "))
}

// nodeTargets are the parts of a checkpoint of the whole node.
func nodeTargets(ctx context.Context, o *RestoreOptions, id Identity) (Identity, []target, error) {
	name := o.Node
	if name == "latest" {
		name = ""
	}
	m, err := o.Store.Node(ctx, name)
	if err != nil {
		return id, nil, err
	}
	id.Partitions = m.Partitions
	var targets []target
	for _, part := range m.Parts {
		if part.Decree != 0 && (o.Partition == nil || *o.Partition == part.Partition) {
			targets = append(targets, target{part.Partition, part.Decree})
		}
	}
	if len(targets) == 0 {
		return id, nil, fmt.Errorf("checkpoint %s of the node holds nothing of what was asked for: %w", m.Name, checkpoint.ErrNotFound)
	}
	return id, targets, nil
}

// restoreAll restores the targets, some at once. The first failure ends the others.
func restoreAll(ctx context.Context, o *RestoreOptions, id Identity, targets []target) ([]checkpoint.RestoredState, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	states := make([]checkpoint.RestoredState, len(targets))
	var all sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, o.Parallel)
	for i, t := range targets {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			state, err := o.Store.RestoreReplica(ctx, nil, t.partition, t.decree, filepath.Join(o.To, partitionsDir), checkpoint.RestoreOptions{Partitions: id.Partitions})
			if err != nil {
				cancel(err)
				return
			}
			states[i] = state
			if o.Restored != nil {
				mu.Lock()
				defer mu.Unlock()
				o.Restored(state, len(targets))
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, s := range states {
		if s.ClusterID != states[0].ClusterID {
			return nil, fmt.Errorf("the checkpoints of partitions %d and %d come from different clusters, %d and %d",
				states[0].Partition, s.Partition, states[0].ClusterID, s.ClusterID)
		}
	}
	return states, nil
}

// prepareTarget makes the folder, or empties what an interrupted restore left of it, and marks it. A folder that holds anything
// else is refused.
func prepareTarget(path string) (existed bool, err error) {
	entries, err := os.ReadDir(path)
	switch {
	case err == nil:
		existed = true
	case !errors.Is(err, fs.ErrNotExist):
		return false, &FlagError{Flag: "to", Value: path, Reason: err.Error()}
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	delete(names, "lost+found")
	if len(names) == 1 && names[restoringFile+".tmp"] {
		delete(names, restoringFile+".tmp") // the mark itself was interrupted
	}
	if len(names) > 0 && (!names[restoringFile] || names[identityFile]) {
		return existed, &FlagError{Flag: "to", Value: path, Reason: "the folder is not empty; give an empty one or one that does not exist"}
	}
	if len(names) > 0 {
		if err := clearTarget(path, true); err != nil {
			return existed, err
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return existed, fmt.Errorf("make the new data folder: %w", err)
	}
	if err := writeFileSynced(filepath.Join(path, restoringFile), nil); err != nil {
		return existed, errors.Join(err, clearTarget(path, existed))
	}
	if err := os.Mkdir(filepath.Join(path, partitionsDir), 0o755); err != nil {
		return existed, errors.Join(fmt.Errorf("make the new data folder: %w", err), clearTarget(path, existed))
	}
	return existed, nil
}

// clearTarget takes away what a restore wrote, the mark last; the folder itself too unless it was there before.
func clearTarget(path string, keep bool) error {
	for _, name := range []string{identityFile, identityFile + ".tmp", partitionsDir, restoringFile + ".tmp", restoringFile} {
		if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
			return fmt.Errorf("clear the new data folder: %w", err)
		}
	}
	if keep {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear the new data folder: %w", err)
	}
	return nil
}
