package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"replicanode/checkpoint"
)

// CreateCheckpoints makes the checkpoints of a stopped node's data folders, which it locks meanwhile: of one partition, or (nil) of
// the whole node. progress, if set, is given the state of things now and then.
func CreateCheckpoints(ctx context.Context, o Options, partition *uint32, full bool, progress func(CheckpointsAnswer)) (_ CheckpointsAnswer, err error) {
	o.CheckpointPeriod = -1
	n, err := New(o)
	if err != nil {
		return CheckpointsAnswer{}, err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.opts.StartTimeout)
		defer cancel()
		err = errors.Join(err, n.Stop(stopCtx))
	}()
	if err := n.startForCheckpoints(ctx); err != nil {
		return CheckpointsAnswer{}, err
	}
	if partition != nil && *partition >= n.folders.Identity.Partitions {
		return CheckpointsAnswer{}, n.unknownPartition(*partition)
	}
	var run job
	ended := make(<-chan struct{})
	if partition == nil {
		var all *checkpoint.NodeRun
		if all, err = n.checkpoints.CreateNode(full); err == nil {
			run, ended = all, all.Settled()
		}
	} else if run, err = n.checkpoints.CreateNow(*partition, full); err == nil {
		ended = run.Done()
	}
	if err != nil {
		return CheckpointsAnswer{}, err
	}
	for ticks := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ticks.C:
			if progress != nil {
				answer, _ := n.getCheckpoints(nil, none{})
				progress(answer)
			}
			continue
		case <-ended:
		case <-ctx.Done():
		}
		ticks.Stop()
		answer, _ := n.getCheckpoints(nil, none{})
		return answer, errors.Join(run.Err(), context.Cause(ctx))
	}
}

// startForCheckpoints opens the data folder and its partitions, and nothing that others could see.
func (n *Node) startForCheckpoints(ctx context.Context) error {
	folders, err := OpenExisting(n.opts.DataDirs)
	if err != nil {
		return err
	}
	n.folders = folders
	n.onClose(dataFolder, folders.Close)
	if err := folders.Unusable(); err != nil {
		return err
	}
	for _, start := range []func(context.Context) error{n.startPool, n.openReplicas} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return n.startCheckpoints(ctx, nil)
}

// LiveNode tells whether a process runs on any of a node's data folders, and where it serves operators.
func LiveNode(dataDirs ...string) (addr string, live bool, err error) {
	for _, dir := range dataDirs {
		if addr, live, err = liveOn(dir); live {
			return addr, live, err
		}
	}
	return addr, live, err
}

func liveOn(dataDir string) (addr string, live bool, err error) {
	if _, err := ReadIdentity(dataDir); err != nil {
		return "", false, err
	}
	lock, err := lockFolder(dataDir)
	if err == nil {
		return "", false, lock.Close()
	}
	if !errors.Is(err, ErrFolderInUse) {
		return "", false, fmt.Errorf("data folder %s: %w", dataDir, err)
	}
	a, err := readAddresses(dataDir)
	if err != nil {
		return "", true, fmt.Errorf("%w; a process holds data folder %s, but does not say where it serves", err, dataDir)
	}
	return a.Admin, true, nil
}
