package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"replicanode/checkpoint"
	"replicanode/gc"
	"replicanode/server/admin"
)

// CheckpointsAnswer is the answer of GET /v1/checkpoints.
type CheckpointsAnswer struct {
	Store      StoreStatus                  `json:"store"`
	Node       checkpoint.NodeStatus        `json:"node"`
	Partitions []checkpoint.PartitionStatus `json:"partitions"`
}

// CheckpointRequest is the body of POST /v1/checkpoints: one partition, or the whole node, which is one job.
type CheckpointRequest struct {
	Partition *uint32 `json:"partition,omitempty"`
	All       bool    `json:"all,omitempty"`
	// Full forbids to build on an earlier checkpoint.
	Full bool `json:"full,omitempty"`
}

// PruneRequest is the body of POST /v1/checkpoints/prune.
type PruneRequest struct {
	// Partition restricts the removal to one partition; nil means all, and the checkpoints of the whole node.
	Partition *uint32 `json:"partition,omitempty"`
	// Keep and KeepForSeconds are the retention. Without either it is the node's own, and without Keep the node's number.
	Keep           int     `json:"keep,omitempty"`
	KeepForSeconds float64 `json:"keep_for_seconds,omitempty"`
}

// maxKeepSeconds is longer than anything is kept, and fits into a duration.
const maxKeepSeconds = 1 << 32

// retention is what the request asks for; own is the node's.
func (r *PruneRequest) retention(own checkpoint.Retention) checkpoint.Retention {
	if r.Keep == 0 && r.KeepForSeconds == 0 {
		return own
	}
	asked := checkpoint.Retention{KeepLast: r.Keep, KeepFor: time.Duration(min(r.KeepForSeconds, maxKeepSeconds) * float64(time.Second))}
	if r.Keep == 0 {
		asked.KeepLast = own.KeepLast
	}
	return asked
}

func (n *Node) getCheckpoints(*http.Request, none) (CheckpointsAnswer, error) {
	return CheckpointsAnswer{Store: StatusOfStore(n.checkpoints.Store()), Node: n.checkpoints.NodeStatus(), Partitions: n.checkpoints.Status()}, nil
}

func (n *Node) postCheckpoints(_ *http.Request, in CheckpointRequest) (JobsAnswer, error) {
	var answer JobsAnswer
	if in.All == (in.Partition != nil) {
		return answer, admin.BadRequest("say either which partition or all")
	}
	if in.All {
		run, err := n.checkpoints.CreateNode(in.Full)
		if err != nil {
			return answer, busy(err)
		}
		answer.Jobs = []JobStatus{n.jobs.add(run)}
		return answer, nil
	}
	job, err := n.checkpoints.CreateNow(*in.Partition, in.Full)
	if errors.Is(err, checkpoint.ErrUnknownPartition) {
		return answer, n.unknownPartition(*in.Partition)
	}
	if err != nil {
		return answer, busy(err)
	}
	answer.Jobs = []JobStatus{n.jobs.add(job)}
	return answer, nil
}

// unknownPartition says why there is nothing to copy or to remove of a partition.
func (n *Node) unknownPartition(partition uint32) error {
	if partition >= n.folders.Identity.Partitions {
		return admin.NotFound("partition %d does not exist: there are partitions 0 to %d", partition, n.folders.Identity.Partitions-1)
	}
	return admin.NotFound("partition %d is not open: %v", partition, cmp.Or(n.partitionError(partition), errNotOpen))
}

// errNotOpen is why a partition that has not failed cannot be used.
var errNotOpen = errors.New("it opens or closes just now")

func (n *Node) postPrune(_ *http.Request, in PruneRequest) (JobsAnswer, error) {
	var answer JobsAnswer
	r := in.retention(n.checkpointRetention())
	if err := r.Validate(); err != nil {
		return answer, admin.BadRequest("%v", err)
	}
	run, err := n.checkpoints.Prune(in.Partition, r)
	if errors.Is(err, checkpoint.ErrUnknownPartition) {
		return answer, n.unknownPartition(*in.Partition)
	}
	if err != nil {
		return answer, busy(err)
	}
	answer.Jobs = []JobStatus{n.jobs.add(run)}
	return answer, nil
}

func (n *Node) checkpointRetention() checkpoint.Retention {
	return checkpoint.Retention{KeepLast: n.opts.CheckpointKeep, KeepFor: n.opts.CheckpointKeepFor}
}

// partitionError is why a partition does not serve, nil when that is not known.
func (n *Node) partitionError(partition uint32) error {
	if p := n.host.Partition(partition); p != nil {
		return p.Err()
	}
	return nil
}

// serving says whether clients' requests were answered in the last seconds.
func (n *Node) serving() bool {
	return n.phases.readiness().Phase == PhaseServing && n.redis.WriteP99() > 0
}

// parentMaxAge is how old a checkpoint may be that another one is built on. What a replica removes from its database without a trace
// is dead for every later log entry and reader, so any age would do; a day keeps a chain from outliving what it was meant to save.
const parentMaxAge = 24 * time.Hour

// removalRate is how fast old checkpoints are removed, as any other garbage; nil while nobody else uses the disk.
func (n *Node) removalRate() func(backlog int64) float64 {
	disk := n.maintenance.disk
	if disk == nil {
		return nil
	}
	pacer := gc.PacerOptions{Baseline: float64(n.opts.GCRate)}
	pacer.EnsureDefaults()
	return func(backlog int64) float64 {
		_, shortage := disk.Space()
		return pacer.Rate(backlog, shortage)
	}
}

// startCheckpoints starts the checkpoint service over the partitions that opened. healthy says how clients and disks are;
// nil: there are no clients to care for.
func (n *Node) startCheckpoints(ctx context.Context, healthy func() bool) error {
	id := n.folders.Identity
	store, closeStore, err := n.openStore()
	if err != nil {
		return err
	}
	n.onClose("checkpoint store", closeStore)
	store.PaceRemovals(n.removalRate())
	o := checkpoint.ServiceOptions{
		Store:  store,
		Runner: n.tasks,
		Create: checkpoint.CreateOptions{
			ClusterID: id.ClusterID, Partitions: id.Partitions,
			Incremental: n.opts.CheckpointChain > 0, MaxAge: parentMaxAge, MaxDepth: max(0, n.opts.CheckpointChain),
		},
		Limit:     checkpoint.LimitOptions{Min: n.opts.CheckpointParallelMin, Max: n.opts.CheckpointParallel, Healthy: healthy},
		Missing:   n.partitionError,
		Refuse:    n.hangs,
		Pace:      n.pace,
		Renew:     n.opts.CheckpointPeriod > 0,
		Retention: n.checkpointRetention(),
		Logger:    n.opts.Logger, Registerer: n.registry,
	}
	for _, p := range n.openPartitions() {
		o.Sources = append(o.Sources, checkpoint.FromReplica(p))
	}
	if n.checkpoints, err = checkpoint.NewService(o); err != nil {
		return fmt.Errorf("make the checkpoint service: %w", err)
	}
	return n.startService(ctx, "checkpoints", n.checkpoints)
}

// hangs says that the disk of a partition does not answer: a copy would only wait for it, in another one's place.
func (n *Node) hangs(partition uint32) error {
	disks := n.disks.Load()
	if disks == nil {
		return nil
	}
	var stuck *gc.StuckError
	if errors.As(disks.Gate(n.folders.placement[partition]), &stuck) {
		return stuck
	}
	return nil
}

// openStore is where this node keeps its checkpoints. While the first data folder can't be used, that is the next one.
func (n *Node) openStore() (*checkpoint.Store, func() error, error) {
	if n.opts.CheckpointStore != "" {
		return OpenCheckpointStore(nil, n.opts.CheckpointStore)
	}
	for i := range n.folders.list {
		f := &n.folders.list[i]
		if f.err != nil {
			continue
		}
		if i > 0 {
			n.opts.Logger.Warn("checkpoints are kept elsewhere while the first data folder can't be used", "folder", f.path)
		}
		return localStore(f.path), func() error { return nil }, nil
	}
	return nil, nil, n.folders.Unusable()
}

// oneLine puts an error that joins several on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
