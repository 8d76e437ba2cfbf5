package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"replicanode/checkpoint"
	"replicanode/checkpoint/s3store"
	"replicanode/gc"
	"replicanode/server/admin"
)

// CheckpointsAnswer is the answer of GET /v1/checkpoints.
type CheckpointsAnswer struct {
	Store      StoreStatus                  `json:"store"`
	Node       checkpoint.NodeStatus        `json:"node"`
	Partitions []checkpoint.PartitionStatus `json:"partitions"`
}

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

// CheckpointVerification says what reading one checkpoint found.
type CheckpointVerification struct {
	Partition uint32 `json:"partition"`
	Decree    uint64 `json:"decree"`
	Entries   uint64 `json:"entries"`
	Bytes     int64  `json:"bytes"`
	// Problem names what is damaged; empty when all is well.
	Problem string `json:"problem,omitempty"`
}

// CheckpointStore is the store of a node's checkpoints in its data folders: that of the first. The node may run or not. Not all of the
// folders need to be given.
func CheckpointStore(dataDirs []string) (*checkpoint.Store, error) {
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
		store, err = CheckpointStore(dataDirs)
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

// ListCheckpoints lists the checkpoints in a store, of one partition or (nil) of all. A partition without any is an error.
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
		infos = append(infos, list...)
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

// PruneCheckpoints removes the checkpoints of one partition, or (nil) of all and of the whole node, that the retention lets go.
// Nothing else may write to the store meanwhile.
func PruneCheckpoints(ctx context.Context, store *checkpoint.Store, partition *uint32, r checkpoint.Retention) (checkpoint.Pruned, error) {
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

// ObsoleteCheckpoints says what PruneCheckpoints would remove.
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

// PruneStopped is PruneCheckpoints for the data folders of a stopped node, which it locks meanwhile.
func PruneStopped(ctx context.Context, dataDirs []string, store *checkpoint.Store, partition *uint32, r checkpoint.Retention) (_ checkpoint.Pruned, err error) {
	folder, err := OpenExisting(dataDirs)
	if err != nil {
		return checkpoint.Pruned{}, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	return PruneCheckpoints(ctx, store, partition, r)
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
		Pace:      n.pace,
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

// oneLine puts an error that joins several on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
