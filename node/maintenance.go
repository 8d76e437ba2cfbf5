package node

import (
	"context"
	"fmt"
	"path/filepath"

	"replicanode/gc"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// maintenance is the housekeeping besides checkpoints, all of it tasks on the long pool.
type maintenance struct {
	disk     *gc.DiskStat
	logs     *gc.Logs
	replicas *gc.Replicas
	values   *gc.Values
}

// startGC starts disk statistics and the three kinds of garbage collection.
func (n *Node) startGC(ctx context.Context) error {
	if err := n.makeGC(); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		run  service
	}{
		{"disk statistics", n.maintenance.disk},
		{"log collection", n.maintenance.logs},
		{"replica collection", n.maintenance.replicas},
		{"value collection", n.maintenance.values},
	} {
		if err := n.startService(ctx, s.name, s.run); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) makeGC() error {
	m := &n.maintenance
	var err error
	if m.disk, err = gc.NewDiskStat(gc.DiskStatOptions{
		Dirs: []string{n.opts.DataDir}, Runner: n.tasks, Changed: n.spaceChanged, Garbage: n.garbage, Logger: n.opts.Logger, Registerer: n.registry,
		Watermarks: gc.Watermarks{LowBytes: n.opts.DiskLowBytes, CriticalBytes: n.opts.DiskCriticalBytes},
	}); err != nil {
		return fmt.Errorf("make disk statistics: %w", err)
	}
	logs := gc.LogsOptions{Runner: n.tasks, Holders: []gc.Holder{gc.HolderFunc(n.duplicationHolds)}, Logger: n.opts.Logger, Registerer: n.registry}
	values := gc.ValuesOptions{Runner: n.tasks, Logger: n.opts.Logger, Registerer: n.registry}
	for _, p := range n.host.Partitions() {
		logs.Partitions = append(logs.Partitions, gc.FromOwner(p)) // one that failed is named by gc explain
	}
	for _, p := range n.openPartitions() {
		values.Partitions = append(values.Partitions, p)
	}
	if m.logs, err = gc.NewLogs(logs); err != nil {
		return fmt.Errorf("make log collection: %w", err)
	}
	if m.values, err = gc.NewValues(values); err != nil {
		return fmt.Errorf("make value collection: %w", err)
	}
	if m.replicas, err = gc.NewReplicas(gc.ReplicasOptions{
		Dropped: Dropped(n.opts.DataDir), Runner: n.tasks, Grace: n.opts.DropGrace, Pacer: gc.PacerOptions{Baseline: float64(n.opts.GCRate)}, Space: m.disk.Space, Logger: n.opts.Logger, Registerer: n.registry,
	}); err != nil {
		return fmt.Errorf("make replica collection: %w", err)
	}
	return nil
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

// Dropped is the place of a data folder where dropped replicas wait for their removal.
func Dropped(dataDir string) *gc.Dropped {
	return gc.NewDropped(nil, filepath.Join(dataDir, droppedDir), filepath.Join(dataDir, partitionsDir), nil)
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
		n.maintenance.logs.Trigger()
	}
}

// spaceChanged reacts to a disk that fills or empties: while space is short, garbage collection goes above everything else on the
// long pool, with or without the controller of priorities, and what can be freed is freed at once. At the critical level the private logs keep no spare files, either. Writes are refused by the gate
// that the clients' server asks.
func (n *Node) spaceChanged(level gc.Level, refuse error) {
	n.host.SetFrugal(level == gc.LevelCritical)
	for _, spec := range n.tasks.Specs() {
		switch spec.Code {
		case tasks.GCLogs, tasks.GCReplicas, tasks.GCValues:
			if err := n.liftForSpace(spec, level); err != nil {
				n.opts.Logger.Error("priority of garbage collection not changed", "code", string(spec.Code), "error", err)
			}
		}
	}
	if level == gc.LevelOK {
		n.opts.Logger.Info("disk space recovered")
		return
	}
	attrs := []any{"level", level.String(), "refusing_writes", refuse != nil}
	if refuse != nil {
		attrs = append(attrs, "reason", refuse)
	}
	n.opts.Logger.Warn("disk space is short", attrs...)
	n.maintenance.logs.Trigger()
	n.maintenance.replicas.Trigger()
	n.maintenance.values.Trigger()
}

// liftForSpace puts a code at HIGH while space is short, and back to what its spec says after.
func (n *Node) liftForSpace(spec tasks.Spec, level gc.Level) error {
	if level == gc.LevelOK {
		return n.tasks.SetPriority(spec.Code, spec.Priority)
	}
	return n.pool.SetPriority(string(spec.Code), threadpool.High)
}

// triggers are the periodic tasks that can be run by hand.
func (m *maintenance) triggers() map[tasks.Code]func() {
	return map[tasks.Code]func(){
		tasks.DiskStat:   m.disk.Trigger,
		tasks.GCLogs:     m.logs.Trigger,
		tasks.GCReplicas: m.replicas.Trigger,
		tasks.GCValues:   m.values.Trigger,
	}
}

func (m *maintenance) status() GCAnswer {
	return GCAnswer{Logs: m.logs.Explain(), Dropped: m.replicas.Status(), Values: m.values.Status()}
}
