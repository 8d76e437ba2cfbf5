package node

import (
	"time"

	"replicanode/duplication"
	"replicanode/gc"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// healthy says whether clients and disks have room for more maintenance.
func (n *Node) healthy() bool {
	if n.phases.readiness().Phase != PhaseServing {
		return false
	}
	level, _ := n.maintenance.disk.Space()
	return level == gc.LevelOK && n.redis.WriteP99() <= n.opts.WriteTarget
}

// signals measures what the controller of priorities looks at. What can't be measured is left out, which the controller treats as
// missing.
func (n *Node) signals() tasks.Signals {
	var s tasks.Signals
	if n.phases.readiness().Phase != PhaseServing {
		return s
	}
	now := time.Now()
	n.lagSignal(&s, now)
	s.ForegroundWrite = tasks.Measured(n.redis.WriteP99().Seconds(), now)
	s.CommonWait = n.commonWait(now)
	var logBytes int64
	for _, p := range n.openPartitions() {
		logBytes += p.Log().Stats().Bytes
	}
	s.LogBytes = tasks.Measured(float64(logBytes), now)
	// A private log is never kept for a checkpoint's sake: recovery needs only the database's own tables.
	s.CheckpointAge = tasks.Measured(0, now)
	for _, d := range n.maintenance.disk.Status() {
		// Disk statistics watch the age of their own figures: a disk that stops answering is reported as stuck.
		if d.TotalBytes > 0 && !d.Stuck {
			free := tasks.Measured(float64(d.FreeBytes)/float64(d.TotalBytes), now)
			if s.DiskFree.At.IsZero() || free.Value < s.DiskFree.Value {
				s.DiskFree = free
			}
		}
	}
	return s
}

// lagSignal is the lag of the pipeline that is furthest behind, and what limits that one.
func (n *Node) lagSignal(s *tasks.Signals, now time.Time) {
	var worst duplication.PipelineStatus
	for _, p := range n.source.Status() {
		if p.Lag.Seconds >= worst.Lag.Seconds {
			worst = p
		}
	}
	s.Lag = tasks.Measured(worst.Lag.Seconds, now)
	switch worst.LimitedBy {
	case duplication.LimitedByScheduling:
		s.LagLimit = tasks.LimitScheduling
	case duplication.LimitedByDisk:
		s.LagLimit = tasks.LimitDisk
	case duplication.LimitedByRemote:
		s.LagLimit = tasks.LimitRemote
	case duplication.LimitedByNothing:
		s.LagLimit = tasks.LimitNone
	}
}

// commonWait is the 99th percentile of the recent waits of Common tasks, those that only lack a slot until now included.
func (n *Node) commonWait(now time.Time) tasks.Signal {
	var waiting []time.Duration
	for _, w := range n.pool.Explain(explainedWaiting).Waiting {
		if w.Priority == threadpool.Common && (w.Blocker == threadpool.BlockedNot || w.Blocker == threadpool.BlockedSlot) {
			waiting = append(waiting, w.For)
		}
	}
	return tasks.Measured(n.commonWaits.p99(now, n.pool.Waits(threadpool.Common), waiting).Seconds(), now)
}
