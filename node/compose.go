package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"replicanode/checkpoint"
	"replicanode/duplication"
	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/server/admin"
	"replicanode/server/redis"
	"replicanode/server/resp"
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
	if fresh, err := inspectFolder(n.opts.DataDir); err == nil && fresh && want.Partitions == 0 {
		want.Partitions = newFolderPartitions
	}
	folder, err := OpenFolder(n.opts.DataDir, want)
	if err != nil {
		return err
	}
	n.folder = folder
	n.onClose("data folder", folder.Close)
	if n.admin, err = admin.New(admin.Options{Listener: n.listeners.admin, Gatherer: n.registry, Health: n, Password: n.opts.RequirePass, Logger: n.opts.Logger}); err != nil {
		return err
	}
	n.routes()
	if err := n.startService(ctx, "admin server", n.admin); err != nil {
		return err
	}
	addresses := n.Addresses()
	addresses.PID = os.Getpid()
	// The file is a convenience: a disk that is too full for it must not keep the node from serving reads and freeing space.
	if err := folder.writeAddresses(addresses); err != nil {
		n.opts.Logger.Warn("addresses file not written", "error", err)
	}
	n.onClose("addresses file", folder.removeAddresses)
	return nil
}

func (n *Node) startPool(ctx context.Context) error {
	queued := threadpool.Levels{}
	for level := range queued {
		queued[level] = n.opts.MaxQueued
	}
	pool, err := threadpool.New(threadpool.Options{
		Workers:    n.opts.Workers,
		MaxRunning: threadpool.Levels{threadpool.Low: n.opts.LowLimit},
		MaxQueued:  queued,
		Guards:     n.opts.guards(),
		Slice:      n.opts.Slice,
		Logger:     n.opts.Logger,
	})
	if err != nil {
		return fmt.Errorf("make the long pool: %w", err)
	}
	if err := n.registry.Register(poolmetrics.New(pool)); err != nil {
		return fmt.Errorf("register the long pool's metrics: %w", err)
	}
	n.pool = pool
	if err := n.startService(ctx, "long pool", pool); err != nil {
		return err
	}
	specs, err := n.opts.taskSpecs()
	if err != nil {
		return err
	}
	if n.tasks, err = tasks.New(tasks.Options{
		Pool: pool, Specs: specs, Adaptive: tasks.AdaptiveOptions{Enabled: n.opts.Adaptive, Source: n.signals, ForegroundTarget: n.opts.WriteTarget},
		Logger: n.opts.Logger, Registerer: n.registry,
	}); err != nil {
		return fmt.Errorf("make the task runner: %w", err)
	}
	return n.startService(ctx, "task runner", n.tasks)
}

// openReplicas opens every partition on the long pool, replays its log, and waits for its leader.
func (n *Node) openReplicas(ctx context.Context) error {
	n.syncer = plog.NewSyncer(plog.SyncerOptions{})
	if err := n.startService(ctx, "log syncer", n.syncer); err != nil {
		return err
	}
	id := n.folder.Identity
	var err error
	o := replica.Options{
		Dir:             filepath.Join(n.opts.DataDir, partitionsDir),
		Partitions:      id.Partitions,
		NodeID:          id.NodeID,
		ClusterID:       id.ClusterID,
		Syncer:          n.syncer,
		Log:             plog.Options{SegmentBytes: n.opts.SegmentBytes, Metrics: plog.NewMetrics(n.registry), Logger: n.opts.Logger},
		Runner:          &openRunner{tasks: n.tasks, phases: &n.phases, total: int(id.Partitions)},
		MaxValueBytes:   n.opts.MaxValueBytes,
		DurableAdvanced: n.durableAdvanced,
		MemTableBytes:   n.opts.MemtableBytes,
		Logger:          n.opts.Logger,
		Registerer:      n.registry,
	}
	o.EnsureDefaults()
	n.limits = limits{mutation: o.MaxMutationBytes, duplicated: o.MaxDuplicatedBytes}
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
		// What could be opened is served; readyz names what could not.
		n.opts.Logger.Error("some partitions do not serve", "error", err)
	}
	return nil
}

func (n *Node) startDuplication(ctx context.Context) error {
	serverTLS, clientTLS, err := n.peerTLS()
	if err != nil {
		return err
	}
	if err := n.startReceiver(ctx, serverTLS); err != nil {
		return err
	}
	if n.client, err = peer.NewClient(peer.ClientOptions{TLS: clientTLS, Logger: n.opts.Logger}); err != nil {
		return fmt.Errorf("make the peer client: %w", err)
	}
	n.onClose("peer client", n.client.Close)
	id := n.folder.Identity
	o := duplication.Options{
		ClusterID: id.ClusterID, PartitionCount: id.Partitions, Remotes: n.opts.DuplicateTo, Network: n.client, Jobs: n.tasks,
		TailBytes: int(n.opts.DupTailBytes), BatchBytes: int(n.opts.DupBatchBytes), WindowBytes: int(n.opts.DupWindowBytes),
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

// peerTLS loads the configured certificates; nil without them.
func (n *Node) peerTLS() (server, client *tls.Config, err error) {
	if n.opts.PeerTLSCert == "" {
		return nil, nil, nil
	}
	server, client, err = peer.LoadTLS(peer.TLSFiles{Certificate: n.opts.PeerTLSCert, Key: n.opts.PeerTLSKey, CA: n.opts.PeerTLSCA})
	if err != nil {
		return nil, nil, &FlagError{Flag: "peer-tls-cert", Value: n.opts.PeerTLSCert, Reason: err.Error()}
	}
	return server, client, nil
}

func (n *Node) startReceiver(ctx context.Context, serverTLS *tls.Config) error {
	id := n.folder.Identity
	var err error
	n.receiver, err = duplication.NewReceiver(duplication.ReceiverOptions{
		ClusterID: id.ClusterID, PartitionCount: id.Partitions,
		Target: n.target, MaxBatchBytes: n.limits.duplicated, Logger: n.opts.Logger, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("make the duplication receiver: %w", err)
	}
	n.onStop("duplication receiver", n.receiver.Stop)
	n.peers, err = peer.NewServer(peer.ServerOptions{
		Listener: n.listeners.peer,
		Identity: peer.Identity{ClusterID: id.ClusterID, NodeID: id.NodeID, Partitions: id.Partitions},
		Handlers: peer.Handlers{Duplication: n.receiver}, MaxMessageBytes: n.limits.duplicated + peer.MessageOverhead,
		TLS: serverTLS, Logger: n.opts.Logger, Registerer: n.registry,
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
	id := n.folder.Identity
	o := checkpoint.ServiceOptions{
		Store:     checkpoint.NewStore(nil, filepath.Join(n.opts.DataDir, checkpointsDir)),
		Runner:    n.tasks,
		Create:    checkpoint.CreateOptions{ClusterID: id.ClusterID, Partitions: id.Partitions},
		Limit:     checkpoint.LimitOptions{Healthy: n.healthy},
		Retention: checkpoint.Retention{KeepLast: n.opts.CheckpointKeep},
		Logger:    n.opts.Logger, Registerer: n.registry,
	}
	for _, p := range n.openPartitions() {
		o.Sources = append(o.Sources, checkpoint.FromReplica(p))
	}
	var err error
	if n.checkpoints, err = checkpoint.NewService(o); err != nil {
		return fmt.Errorf("make the checkpoint service: %w", err)
	}
	if err := n.startService(ctx, "checkpoints", n.checkpoints); err != nil {
		return err
	}
	return n.startGC(ctx)
}

func (n *Node) acceptClients(ctx context.Context) error {
	var err error
	n.redis, err = redis.New(redis.Options{
		Listener:   n.listeners.redis,
		Store:      redis.FromHost(n.host),
		Password:   n.opts.RequirePass,
		MaxClients: n.opts.MaxClients,
		Limits:     resp.Limits{MaxBulkBytes: n.opts.MaxValueBytes}, MaxMutationBytes: n.limits.mutation,
		WriteGate: n.maintenance.disk.Gate,
		Version:   moduleVersion(),
		Logger:    n.opts.Logger, Registerer: n.registry,
	})
	if err != nil {
		return fmt.Errorf("make the clients' server: %w", err)
	}
	return n.startService(ctx, "clients' server", n.redis)
}
