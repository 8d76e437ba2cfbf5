package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"replicanode/checkpoint"
	"replicanode/duplication"
	"replicanode/gc"
	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/server/redis"
	"replicanode/tasks"
	"replicanode/threadpool"
	"replicanode/threadpool/poolmetrics"
)

func (n *Node) bindListeners(context.Context) error {
	for _, l := range []struct {
		flag, addr string
		into       *net.Listener
	}{
		{"listen", n.opts.Listen, &n.listeners.redis},
		{"admin", n.opts.Admin, &n.listeners.admin},
		{"peer", n.opts.Peer, &n.listeners.peer},
	} {
		listener, err := bind(l.flag, l.addr)
		if err != nil {
			return err
		}
		*l.into = listener
		n.onClose(l.flag+" address", func() error { return ignoreClosed(listener.Close()) })
	}
	return nil
}

// ignoreClosed drops the error of closing a listener that its server has closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *Node) openFolder(ctx context.Context) error {
	want := Identity{ClusterID: n.opts.ClusterID, Partitions: n.opts.Partitions}
	folder, err := OpenFolders(n.opts.DataDirs, want)
	if err != nil {
		return err
	}
	n.folders = folder
	n.onClose(dataFolder, folder.Close)
	n.announced = true
	n.opts.Logger.Info("starting", "data", folder.String(), "cluster", folder.Identity.ClusterID, "node", folder.Identity.NodeID,
		"partitions", folder.Identity.Partitions, "version", ThisBuild().Version, "pid", os.Getpid())
	for _, note := range folder.notes {
		n.opts.Logger.Warn("data folders", "note", note)
	}
	if n.admin, err = admin.New(admin.Options{Listener: n.listeners.admin, Gatherer: n.registry, Health: n, Password: n.opts.RequirePass,
		MaxConnections: n.opts.MaxAdminConnections, Logger: n.opts.Logger, Registerer: n.registry}); err != nil {
		return err
	}
	n.routes()
	if err := n.startService(ctx, "admin server", n.admin); err != nil {
		return err
	}
	// The file is a convenience: a disk that is too full for it must not keep the node from serving reads and freeing space.
	if err := folder.writeAddresses(n.Addresses()); err != nil {
		n.opts.Logger.Warn("addresses file not written", "error", err)
	}
	n.onClose("addresses file", folder.removeAddresses)
	r := n.opts.replicaOptions(folder.Identity)
	r.EnsureDefaults()
	n.limits = limits{mutation: r.MaxMutationBytes, duplicated: r.MaxDuplicatedBytes}
	return n.acceptClients(ctx)
}

func (n *Node) startPool(ctx context.Context) error {
	pool, err := threadpool.New(n.opts.poolOptions())
	if err != nil {
		return fmt.Errorf("make the long pool: %w", err)
	}
	if err := n.registry.Register(poolmetrics.New(pool)); err != nil {
		return fmt.Errorf("register the long pool's metrics: %w", err)
	}
	n.pool, n.startedPool = pool, pool.Settings()
	if err := n.startService(ctx, "long pool", pool); err != nil {
		return err
	}
	specs, changes, err := n.opts.taskSpecs()
	if err != nil {
		return err
	}
	if n.tasks, err = tasks.New(tasks.Options{
		Pool: pool, Specs: specs, Overrides: changes, Adaptive: tasks.AdaptiveOptions{Enabled: n.opts.Adaptive, Source: n.signals, ForegroundTarget: n.opts.WriteTarget},
		Logger: n.opts.Logger, Registerer: n.registry,
	}); err != nil {
		return fmt.Errorf("make the task runner: %w", err)
	}
	return n.startService(ctx, "task runner", n.tasks)
}

// logBallastBytes are kept in reserve by each private log, so that it can be released when the disk is full.
const logBallastBytes = 64 << 10

// openReplicas opens every partition on the long pool, replays its log, and waits for its leader.
func (n *Node) openReplicas(ctx context.Context) error {
	metrics := plog.NewMetrics(n.registry)
	disks, err := n.startSyncers(ctx, metrics)
	if err != nil {
		return err
	}
	id := n.folders.Identity
	n.phases.progress(0, int(id.Partitions))
	o := n.opts.replicaOptions(id)
	o.Disks, o.Placement = disks, n.folders.placement
	o.Log.Metrics, o.Log.BallastBytes = metrics, logBallastBytes
	o.Runner = &openRunner{tasks: n.tasks, phases: &n.phases, total: int(id.Partitions)}
	o.DurableAdvanced, o.Registerer = n.durableAdvanced, n.registry
	o.MustExist = n.folders.mustExist()
	if n.host, err = replica.NewHost(o); err != nil {
		return err
	}
	n.replicas.Store(n.host)
	if err := n.startService(ctx, "replicas", n.host); err != nil {
		return err
	}
	if err := n.host.WaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// What could be opened is served. Each partition that failed has logged why, and readyz says it.
		var failed []uint32
		for _, p := range n.host.Partitions() {
			if p.Err() != nil {
				failed = append(failed, p.ID())
			}
		}
		n.opts.Logger.Error("some partitions do not serve", "partitions", failed)
	}
	n.noteServing()
	return nil
}

// startSyncers starts a syncer for each data folder, with the folder's journal, so that the logs on one disk do not wait for the syncs of
// another. Of several folders, one whose journal can't be brought back cannot be used.
func (n *Node) startSyncers(ctx context.Context, metrics *plog.Metrics) ([]replica.Disk, error) {
	var disks []replica.Disk
	for i := range n.folders.list {
		f := &n.folders.list[i]
		disk := replica.Disk{Dir: filepath.Join(f.path, partitionsDir)}
		if n.logFS != nil {
			disk.FS = n.logFS(i)
		}
		if f.err == nil {
			syncer, err := n.newSyncer(f.path, n.folders.on(i), disk.FS, metrics)
			switch {
			case err == nil:
				if err := n.startService(ctx, "log syncer", syncer); err != nil {
					return nil, err
				}
				n.syncers = append(n.syncers, syncer)
				disk.Syncer = syncer
			case len(n.folders.list) == 1:
				return nil, err
			default:
				f.err = err
			}
		}
		if f.err != nil {
			disk.Err = &FolderError{Path: f.path, Reason: f.err}
		}
		disks = append(disks, disk)
	}
	return disks, nil
}

func (n *Node) startDuplication(ctx context.Context) error {
	if err := n.startReceiver(ctx); err != nil {
		return err
	}
	var err error
	if n.client, err = peer.NewClient(peer.ClientOptions{TLS: n.tls.client}); err != nil {
		return fmt.Errorf("make the peer client: %w", err)
	}
	n.onClose("peer client", n.client.Close)
	id := n.folders.Identity
	paused, err := n.folders.readPaused()
	if err != nil {
		return err
	}
	o := duplication.Options{
		Paused: paused, SavePaused: n.folders.savePaused,
		ClusterID: id.ClusterID, PartitionCount: id.Partitions, Remotes: n.opts.DuplicateTo, Network: n.client, Jobs: n.tasks,
		TailBytes: int(n.opts.DupTailBytes), BatchBytes: int(n.opts.DupBatchBytes), WindowBytes: int(n.opts.DupWindowBytes),
		MaxTailBytes: int(n.opts.Dup.TailTotalBytes), WindowBatches: n.opts.Dup.WindowBatches, ReadAheadBytes: int(n.opts.Dup.ReadAheadBytes),
		Logger: n.opts.Logger, Registerer: n.registry,
	}
	for _, p := range n.openPartitions() {
		o.Partitions = append(o.Partitions, p)
	}
	if n.source, err = duplication.New(o); err != nil {
		return fmt.Errorf("make duplication: %w", err)
	}
	return n.startService(ctx, "duplication", n.source)
}

func (n *Node) startReceiver(ctx context.Context) error {
	id := n.folders.Identity
	var err error
	n.receiver, err = duplication.NewReceiver(duplication.ReceiverOptions{
		ClusterID: id.ClusterID, PartitionCount: id.Partitions,
		Target: n.target, LeaderAddress: n.leaderAddress, MaxBatchBytes: n.limits.duplicated,
		MaxStreams: n.opts.Dup.ReceiveStreams, MaxApplyingBytes: n.opts.Dup.ReceiveBytes, Logger: n.opts.Logger, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("make the duplication receiver: %w", err)
	}
	n.onStop("duplication receiver", n.receiver.Stop)
	n.peers, err = peer.NewServer(peer.ServerOptions{
		Listener: n.listeners.peer,
		Identity: peer.Identity{ClusterID: id.ClusterID, NodeID: id.NodeID, Partitions: id.Partitions, Version: ThisBuild().Version},
		Handlers: peer.Handlers{Duplication: n.receiver}, MaxMessageBytes: n.limits.duplicated + peer.MessageOverhead,
		MaxConnections: n.opts.MaxPeerConnections, MaxStreams: uint32(n.opts.MaxPeerStreams),
		TLS: n.tls.server, Logger: n.opts.Logger, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("make the peer server: %w", err)
	}
	return n.startService(ctx, "peer server", n.peers)
}

// target finds a partition for the receiver. A partition that does not serve refuses for itself.
func (n *Node) target(partition uint32) duplication.Target {
	if p := n.host.Partition(partition); p != nil {
		return p
	}
	return nil
}

// leaderAddress is where sources find a node of this cluster, empty when that is not known: a node on every interface does not know
// which of its addresses others can reach.
func (n *Node) leaderAddress(node uint64) string {
	tcp, ok := n.listeners.peer.Addr().(*net.TCPAddr)
	if node != n.folders.Identity.NodeID || !ok || tcp.IP.IsUnspecified() {
		return ""
	}
	return tcp.String()
}

// openPartitions are the partitions that opened; one that failed has no log to ship or collect.
func (n *Node) openPartitions() []*replica.Partition {
	var open []*replica.Partition
	for _, p := range n.host.Partitions() {
		if p.Err() == nil && p.Log() != nil {
			open = append(open, p)
		}
	}
	return open
}

func (n *Node) startMaintenance(ctx context.Context) error {
	if share := n.opts.CheckpointShare; share >= 0 {
		var err error
		if n.pace, err = checkpoint.NewPace(checkpoint.PaceOptions{Busy: n.serving, Share: share}); err != nil {
			return fmt.Errorf("make the pace of maintenance: %w", err)
		}
	}
	if err := n.startGC(ctx); err != nil {
		return err
	}
	return n.startCheckpoints(ctx, n.healthy)
}

// acceptClients lets clients connect. They are told to wait until serveClients.
func (n *Node) acceptClients(ctx context.Context) error {
	var err error
	o := n.opts.clientOptions(n.limits)
	o.Listener, o.Registerer, o.DiskFull = n.listeners.redis, n.registry, n.diskFull
	o.Loading = n.phases.loading
	n.redis, err = redis.New(o)
	if err != nil {
		return fmt.Errorf("make the clients' server: %w", err)
	}
	return n.startService(ctx, "clients' connections", n.redis)
}

// serveClients lets the clients' commands through. What serves them is stopped before what they need.
func (n *Node) serveClients(context.Context) error {
	n.redis.Open(redis.FromHost(n.host), n.writeGate)
	n.onStop(clientsServer, n.redis.Stop)
	return nil
}

// writeGate refuses writes to a partition while its disk is critically full, or does not answer: they would only pile up.
func (n *Node) writeGate(partition int) error {
	err := n.maintenance.disk.Gate(n.folders.placement[partition])
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gc.ErrNoAnswer):
		return fmt.Errorf("TRYAGAIN %w", err)
	}
	return fmt.Errorf("OOM %w", err)
}

// diskFull names the disk that has no room for a log, and what is free on it.
func (n *Node) diskFull() string {
	path, free := "", uint64(0)
	for _, d := range n.maintenance.disk.Status() {
		if d.TotalBytes > 0 && (path == "" || d.FreeBytes < free) {
			path, free = d.Path, d.FreeBytes
		}
	}
	if path == "" {
		return fmt.Sprintf("the disk of %s is full: writes are refused until there is space", n.folders)
	}
	return fmt.Sprintf("the disk of %s is full: %d bytes free; writes are refused until there is space", path, free)
}
