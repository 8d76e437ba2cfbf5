package node

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/gc"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// maintenance is the housekeeping besides checkpoints, all of it tasks on the long pool. What works on partitions is there once for each
// data folder, so that a disk that hangs holds up nothing of another one.
type maintenance struct {
	disk    *gc.DiskStat
	folders []folderMaintenance // of those that can be used

	// spacing orders the reactions to disks that fill or empty.
	spacing sync.Mutex
}

// folderMaintenance collects the garbage in one data folder.
type folderMaintenance struct {
	logs     *gc.Logs
	replicas *gc.Replicas
	values   *gc.Values
}

// startGC starts disk statistics and the three kinds of garbage collection.
func (n *Node) startGC(ctx context.Context) error {
	if err := n.makeGC(); err != nil {
		return err
	}
	if err := n.startService(ctx, "disk statistics", n.maintenance.disk); err != nil {
		return err
	}
	n.disks.Store(n.maintenance.disk)
	for _, f := range n.maintenance.folders {
		for _, s := range []struct {
			name string
			run  service
		}{{"log collection", f.logs}, {"replica collection", f.replicas}, {"value collection", f.values}} {
			if err := n.startService(ctx, s.name, s.run); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) makeGC() error {
	m := &n.maintenance
	o := gc.DiskStatOptions{
		Dirs: n.folders.Paths(), Runner: n.tasks, Changed: n.spaceChanged, Garbage: n.garbage, Logger: n.opts.Logger, Registerer: n.registry,
		Watermarks: gc.Watermarks{LowBytes: n.opts.DiskLowBytes, CriticalBytes: n.opts.DiskCriticalBytes}, Usage: n.diskUsage, FS: n.diskFS,
	}
	for i := range n.folders.list {
		o.Failed = append(o.Failed, n.folders.list[i].err)
	}
	var err error
	if m.disk, err = gc.NewDiskStat(o); err != nil {
		return fmt.Errorf("make disk statistics: %w", err)
	}
	for i := range n.folders.list {
		if n.folders.list[i].err != nil {
			continue
		}
		f, err := n.makeFolderGC(i)
		if err != nil {
			return err
		}
		m.folders = append(m.folders, f)
	}
	return nil
}

// makeFolderGC makes what collects garbage in a data folder.
func (n *Node) makeFolderGC(index int) (f folderMaintenance, err error) {
	path := n.folders.list[index].path
	pacer := gc.PacerOptions{Baseline: float64(n.opts.GCRate)}
	space := func() (gc.Level, int64) { return n.maintenance.disk.SpaceOf(index) }
	registry := prometheus.WrapRegistererWith(prometheus.Labels{"path": path}, n.registry)
	logs := gc.LogsOptions{Name: path, Runner: n.tasks, Holders: []gc.Holder{gc.HolderFunc(n.duplicationHolds)},
		Pacer: pacer, Space: space, Logger: n.opts.Logger, Registerer: registry}
	values := gc.ValuesOptions{Name: path, Runner: n.tasks, Paced: n.paced, Logger: n.opts.Logger, Registerer: registry}
	for _, id := range n.folders.on(index) {
		p := n.host.Partition(id)
		logs.Partitions = append(logs.Partitions, gc.FromOwner(p)) // one that failed is named by gc explain
		if p.Err() == nil && p.Log() != nil {
			values.Partitions = append(values.Partitions, p)
		}
	}
	if f.logs, err = gc.NewLogs(logs); err != nil {
		return f, fmt.Errorf("make log collection: %w", err)
	}
	if f.values, err = gc.NewValues(values); err != nil {
		return f, fmt.Errorf("make value collection: %w", err)
	}
	if f.replicas, err = gc.NewReplicas(gc.ReplicasOptions{
		Name: path, Dropped: droppedOn(n.diskFS, path), Runner: n.tasks, Grace: n.opts.DropGrace, Pacer: pacer,
		Space: space, Logger: n.opts.Logger, Registerer: registry,
	}); err != nil {
		return f, fmt.Errorf("make replica collection: %w", err)
	}
	return f, nil
}

// paced makes a turn keep the pace of checkpoints, but while space is short: then what frees some comes first.
func (n *Node) paced(turn *threadpool.Turn) gc.Turn {
	if n.pace == nil {
		return turn
	}
	return n.pace.Turn(turn, func() bool {
		level, _ := n.maintenance.disk.Space()
		return level != gc.LevelOK
	})
}

// garbage is what a partition's log and database keep and nobody needs: spare log files, and entries that go with the next compaction.
func (n *Node) garbage(partition uint32) int64 {
	p := n.host.Partition(partition)
	if p == nil || p.Err() != nil || p.Log() == nil {
		return 0
	}
	bytes := int64(p.Log().Stats().Spares) * n.opts.SegmentBytes
	if db := p.DB(); db != nil {
		for _, table := range db.Tables() {
			bytes += int64(table.StaleDataSize)
		}
	}
	return bytes
}

// droppedIn is the place of a data folder where dropped replicas wait for their removal.
func droppedIn(dataDir string) *gc.Dropped { return droppedOn(nil, dataDir) }

// droppedOn is droppedIn on a file system; nil: the system's.
func droppedOn(fs vfs.FS, dataDir string) *gc.Dropped {
	return gc.NewDropped(fs, filepath.Join(dataDir, droppedDir), filepath.Join(dataDir, partitionsDir), nil)
}

// duplicationHolds says what the remotes still need of a partition's log: one hold per remote, unknown until it was heard of.
func (n *Node) duplicationHolds(partition uint32) []gc.Hold {
	if len(n.opts.DuplicateTo) == 0 {
		return nil
	}
	decree, known := n.source.Confirmed(partition)
	return []gc.Hold{{Rule: gc.RuleDuplication, Decree: decree, Known: known}}
}

// durableAdvanced runs log collection soon: a table that was written out may free a segment, and a segment that is used again
// needs no preparation. It is called before maintenance has started, too.
func (n *Node) durableAdvanced(uint32) {
	if n.phases.readiness().Phase == PhaseServing {
		n.maintenance.triggerLogs()
	}
}

// spaceChanged reacts to a disk that fills or empties: while space is short anywhere, garbage collection goes above everything else on
// the long pool, with or without the controller of priorities, and what can be freed there is freed at once. At the critical level the
// private logs of that disk keep no spare files, either. Writes to it are refused by the gate that the clients' server asks.
func (n *Node) spaceChanged(disk int, level gc.Level, refuse error) {
	m := &n.maintenance
	m.spacing.Lock()
	defer m.spacing.Unlock()
	n.host.SetFrugal(disk, level == gc.LevelCritical)
	least := threadpool.Low
	if worst, _ := m.disk.Space(); worst != gc.LevelOK {
		least = threadpool.High
	}
	for _, code := range []tasks.Code{tasks.GCLogs, tasks.GCReplicas, tasks.GCValues} {
		if err := n.tasks.SetFloor(code, least); err != nil {
			n.opts.Logger.Error("priority of garbage collection not changed", "code", string(code), "error", err)
		}
	}
	path := n.folders.list[disk].path
	if level == gc.LevelOK {
		n.opts.Logger.Info("disk space recovered", "path", path)
		return
	}
	attrs := []any{"path", path, "level", level.String(), "refusing_writes", refuse != nil}
	if refuse != nil {
		attrs = append(attrs, "reason", refuse)
	}
	n.opts.Logger.Warn("disk space is short", attrs...)
	for _, trigger := range m.triggers() {
		trigger()
	}
}

// triggers are the periodic tasks that can be run by hand.
func (m *maintenance) triggers() map[tasks.Code]func() {
	return map[tasks.Code]func(){
		tasks.DiskStat: m.disk.Trigger,
		tasks.GCLogs:   m.triggerLogs,
		tasks.GCReplicas: func() {
			for _, f := range m.folders {
				f.replicas.Trigger()
			}
		},
		tasks.GCValues: func() {
			for _, f := range m.folders {
				f.values.Trigger()
			}
		},
	}
}

func (m *maintenance) triggerLogs() {
	for _, f := range m.folders {
		f.logs.Trigger()
	}
}

// status puts what is known of all data folders together.
func (m *maintenance) status() GCAnswer {
	a := GCAnswer{Logs: []gc.LogStatus{}, Values: []gc.ValuesStatus{}}
	a.Dropped.Folders = []gc.FolderStatus{}
	var problems []string
	replicas := make([]gc.ReplicasStatus, len(m.folders))
	var listed sync.WaitGroup // all disks at once: some may not answer
	for i := range m.folders {
		listed.Go(func() { replicas[i] = m.folders[i].replicas.Status() })
	}
	listed.Wait()
	for i, f := range m.folders {
		a.Logs = append(a.Logs, f.logs.Explain()...)
		a.Values = append(a.Values, f.values.Status()...)
		st := replicas[i]
		a.Dropped.Folders = append(a.Dropped.Folders, st.Folders...)
		a.Dropped.BacklogBytes += st.BacklogBytes
		a.Dropped.BytesPerSecond += st.BytesPerSecond
		a.Dropped.DeletedBytes += st.DeletedBytes
		a.Dropped.Unlisted = append(a.Dropped.Unlisted, st.Unlisted...)
		if st.LastError != "" {
			problems = append(problems, st.LastError)
		}
	}
	a.Dropped.LastError = strings.Join(problems, "; ")
	slices.SortFunc(a.Logs, func(x, y gc.LogStatus) int { return cmp.Compare(x.Partition, y.Partition) })
	slices.SortFunc(a.Values, func(x, y gc.ValuesStatus) int { return cmp.Compare(x.Partition, y.Partition) })
	slices.SortStableFunc(a.Dropped.Folders, func(x, y gc.FolderStatus) int { return x.Dropped.Compare(y.Dropped) })
	return a
}
