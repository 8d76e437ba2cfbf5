package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:   "run",
		Usage:  "serve Redis clients from a data folder until SIGINT or SIGTERM",
		Flags:  runFlags(),
		Action: run,
	}
}

// Groups of flags in the help of run.
const (
	aboutData        = "Data folder"
	aboutAddresses   = "Addresses and who may use them"
	aboutClients     = "Limits of clients"
	aboutPool        = "The long pool"
	aboutDuplication = "Duplication"
	aboutMaintenance = "Maintenance"
	aboutStorage     = "Storage"
	aboutProcess     = "The process"
)

func runFlags() []cli.Flag {
	var flags []cli.Flag
	d := node.DefaultOptions()
	for _, group := range [][]cli.Flag{dataFlags(d), addressFlags(d), clientFlags(d), poolFlags(d), duplicationFlags(d), maintenanceFlags(d), storageFlags(d), processFlags(d)} {
		flags = append(flags, group...)
	}
	return flags
}

func dataFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Category: aboutData, Name: "data-dir", DefaultText: d.DataDir, Usage: "data `FOLDER`; made when it does not exist; repeatable, one for each disk"},
		&cli.UintFlag{Category: aboutData, Name: "partitions", DefaultText: "8", Usage: "number of partitions of a new folder, 1 to 1024; it can't change afterwards"},
		&cli.Uint64Flag{Category: aboutData, Name: "cluster-id", DefaultText: "random", Usage: "`ID` of this cluster in duplication, for a new folder"},
	}
}

func addressFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Category: aboutAddresses, Name: "listen", Value: d.Listen, Usage: "`HOST:PORT` for Redis clients; port 0 picks one"},
		&cli.StringFlag{Category: aboutAddresses, Name: "admin", Value: d.Admin, Usage: "`HOST:PORT` for operators (HTTP)"},
		&cli.StringFlag{Category: aboutAddresses, Name: "peer", Value: d.Peer, Usage: "`HOST:PORT` for other nodes (gRPC)"},
		&cli.StringFlag{Category: aboutAddresses, Name: "requirepass", Usage: "`PASSWORD` that clients and operators must give", EnvVars: []string{"REPLICANODE_PASSWORD"}},
		&cli.StringFlag{Category: aboutAddresses, Name: "peer-tls-cert", Usage: "PEM `FILE` with this node's certificate, for mutual TLS between nodes"},
		&cli.StringFlag{Category: aboutAddresses, Name: "peer-tls-key", Usage: "PEM `FILE` with the key of --peer-tls-cert"},
		&cli.StringFlag{Category: aboutAddresses, Name: "peer-tls-ca", Usage: "PEM `FILE` with the authority that signed the peers' certificates"},
		&cli.IntFlag{Category: aboutAddresses, Name: "max-admin-connections", Value: d.MaxAdminConnections, Usage: "connections of operators at once; a further one closes one that is idle, or waits"},
		&cli.IntFlag{Category: aboutAddresses, Name: "max-peer-connections", Value: d.MaxPeerConnections, Usage: "connections of other nodes at once"},
		&cli.IntFlag{Category: aboutAddresses, Name: "max-peer-streams", Value: d.MaxPeerStreams, Usage: "calls at once on one connection of another node"},
	}
}

func clientFlags(d node.Options) []cli.Flag {
	c := d.Clients
	return []cli.Flag{
		&cli.IntFlag{Category: aboutClients, Name: "max-clients", Value: c.MaxClients, Usage: "connections at once"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-value-size", Value: &byteSize{n: int64(c.MaxValueBytes)}, Usage: "longest value, up to 64MiB"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-request-size", Value: &byteSize{}, DefaultText: "64MiB, at least twice --max-value-size", Usage: "longest request"},
		&cli.IntFlag{Category: aboutClients, Name: "max-arguments", Value: c.MaxArguments, Usage: "words of a command"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-inline-size", Value: &byteSize{n: int64(c.MaxInlineBytes)}, Usage: "longest inline command"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-command-size", Value: &byteSize{}, DefaultText: "16MiB and --max-value-size", Usage: "what one command may write to one partition"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-reply-size", Value: &byteSize{}, DefaultText: "128MiB, at least twice --max-value-size", Usage: "longest reply"},
		&cli.GenericFlag{Category: aboutClients, Name: "max-buffer-memory", Value: &byteSize{n: c.MaxBufferBytes}, Usage: "buffers of all connections together"},
		&cli.IntFlag{Category: aboutClients, Name: "max-pipeline", Value: c.MaxPipeline, Usage: "commands of a connection under way at once"},
		&cli.DurationFlag{Category: aboutClients, Name: "client-write-timeout", Value: c.WriteTimeout, Usage: "how long a client may take to accept replies"},
		&cli.DurationFlag{Category: aboutClients, Name: "client-request-timeout", Value: c.RequestTimeout, Usage: "how long a client may take to send a request it has begun"},
		&cli.GenericFlag{Category: aboutClients, Name: "client-idle-timeout", Value: &offDuration{c.IdleTimeout}, Usage: "closes connections that send nothing for so long"},
		&cli.DurationFlag{Category: aboutClients, Name: "client-busy-timeout", Value: c.BusyTimeout, Usage: "how long a write waits for room in its partition's queue"},
	}
}

func poolFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Category: aboutPool, Name: "workers", DefaultText: "4, or the number of processors when greater", Usage: "slots: tasks that run at once"},
		&cli.GenericFlag{Category: aboutPool, Name: "low-limit", Value: &offCount{}, DefaultText: "one less than --workers", Usage: "slots that LOW tasks may hold at once, less than --workers; off: all, for comparisons"},
		&cli.IntFlag{Category: aboutPool, Name: "max-queued", Value: d.MaxQueued, Usage: "tasks that may wait, per priority"},
		&cli.IntFlag{Category: aboutPool, Name: "max-parked", Value: d.MaxParked, Usage: "tasks that have given their slot away, per priority, before no more are started"},
		&cli.GenericFlag{Category: aboutPool, Name: "max-wait", Value: &offDuration{d.MaxWait}, Usage: "a task that waits longer is treated one priority higher; off: never"},
		&cli.GenericFlag{Category: aboutPool, Name: "low-share", Value: &offShare{d.LowShare}, Usage: "share of slot time that LOW is sure of, up to 0.5; off: none"},
		&cli.DurationFlag{Category: aboutPool, Name: "slice", Value: d.Slice, Usage: "how long a task runs before it looks whether more urgent work waits"},
		&cli.GenericFlag{Category: aboutPool, Name: "io-rate", Value: &byteSize{n: d.IORate, canOff: true}, Usage: "bytes a second that LOW and COMMON tasks may read and write; off: no bound"},
		&cli.StringSliceFlag{Category: aboutPool, Name: "task-priority", Usage: "`CODE=LEVEL` overrides a task code's priority (low, common, high); repeatable"},
		&cli.StringSliceFlag{Category: aboutPool, Name: "task", Usage: "`CODE.FIELD=VALUE` overrides a field of a task code's spec, see docs/scheduler.md; repeatable"},
		&cli.BoolFlag{Category: aboutPool, Name: "adaptive", Usage: "let priorities and LOW's limits follow the load; see replicanode task adaptive"},
		&cli.DurationFlag{Category: aboutPool, Name: "write-target", Value: d.WriteTarget, Usage: "p99 of clients' writes above which maintenance shrinks"},
	}
}

func duplicationFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Category: aboutDuplication, Name: "duplicate-to", Usage: "`NAME=HOST:PORT` of a remote cluster's --peer address to ship every mutation to; repeatable"},
		&cli.StringSliceFlag{Category: aboutDuplication, Name: "dup-fail-mode", DefaultText: "slow", Usage: "`[NAME=]MODE`: slow stops before what a remote will never take and says so, skip leaves it out and tells; repeatable"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-tail-bytes", Value: &byteSize{n: d.DupTailBytes, canOff: true}, Usage: "recent mutations kept in memory per partition; off: everything is loaded from the log"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-tail-total-bytes", Value: &byteSize{n: d.Dup.TailTotalBytes}, Usage: "the same for all partitions together"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-batch-bytes", Value: &byteSize{n: d.DupBatchBytes}, Usage: "a batch is shipped when it has so many"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-window-bytes", Value: &byteSize{n: d.DupWindowBytes}, Usage: "shipped but not yet confirmed, per partition and remote"},
		&cli.IntFlag{Category: aboutDuplication, Name: "dup-window-batches", Value: d.Dup.WindowBatches, Usage: "the same in batches"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-read-ahead-bytes", Value: &byteSize{n: d.Dup.ReadAheadBytes}, Usage: "loaded from a log and not yet shipped, per partition and remote"},
		&cli.IntFlag{Category: aboutDuplication, Name: "dup-receive-streams", Value: d.Dup.ReceiveStreams, Usage: "streams from other clusters at once"},
		&cli.GenericFlag{Category: aboutDuplication, Name: "dup-receive-bytes", Value: &byteSize{n: d.Dup.ReceiveBytes}, Usage: "received from other clusters and being applied"},
	}
}

func maintenanceFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Category: aboutMaintenance, Name: "checkpoint-period", Value: &offDuration{d.CheckpointPeriod}, Usage: "time between checkpoints of a partition; off: only when asked for"},
		&cli.StringFlag{Category: aboutMaintenance, Name: "checkpoint-store", DefaultText: "checkpoints in the (first) data folder", Usage: "`PLACE` of checkpoints: a folder, or s3://BUCKET/PREFIX?endpoint=URL", EnvVars: []string{"REPLICANODE_CHECKPOINT_STORE"}},
		&cli.DurationFlag{Category: aboutMaintenance, Name: "checkpoint-keep-for", Usage: "younger checkpoints are kept, too"},
		&cli.IntFlag{Category: aboutMaintenance, Name: "checkpoint-keep", Value: d.CheckpointKeep, Usage: "checkpoints kept per partition"},
		&cli.GenericFlag{Category: aboutMaintenance, Name: "checkpoint-chain", Value: &offCount{d.CheckpointChain}, Usage: "checkpoints of a partition, one after a full one, that hold only what changed; off: full ones only"},
		&cli.IntFlag{Category: aboutMaintenance, Name: "checkpoint-parallel", Value: d.CheckpointParallel, Usage: "partitions checkpointed at once, when clients and disks allow"},
		&cli.IntFlag{Category: aboutMaintenance, Name: "checkpoint-parallel-min", Value: d.CheckpointParallelMin, Usage: "partitions checkpointed at once, whatever clients and disks say"},
		&cli.GenericFlag{Category: aboutMaintenance, Name: "checkpoint-share", Value: &offShare{d.CheckpointShare}, Usage: "part of the processors that checkpoints and the sweep of databases take at most while clients are served, up to 1; less, down to a tenth of it, while work waits for a processor or little is idle; off: what they can get"},
		&cli.DurationFlag{Category: aboutMaintenance, Name: "drop-grace", Value: d.DropGrace, Usage: "how long the folder of a dropped replica is kept"},
		&cli.GenericFlag{Category: aboutMaintenance, Name: "gc-rate", Value: &byteSize{n: d.GCRate}, Usage: "bytes a second of dropped replicas, of old checkpoints, and of log files that are not used again, deleted while there is space"},
		&cli.GenericFlag{Category: aboutMaintenance, Name: "disk-low-bytes", Value: &byteSize{}, DefaultText: "a tenth of the disk, at most 20GiB", Usage: "free space below which GC hurries"},
		&cli.GenericFlag{Category: aboutMaintenance, Name: "disk-critical-bytes", Value: &byteSize{}, DefaultText: "3 % of the disk, at most 4GiB and a third of --disk-low-bytes", Usage: "free space below which writes are refused"},
	}
}

func storageFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Category: aboutStorage, Name: "segment-bytes", Value: &byteSize{n: d.SegmentBytes}, Usage: "size of a private log's segment"},
		&cli.GenericFlag{Category: aboutStorage, Name: "memtable-bytes", Value: &byteSize{n: d.MemtableBytes}, Usage: "size of a partition's memtable"},
		&cli.IntFlag{Category: aboutStorage, Name: "partition-queue", Value: d.Storage.QueueCommands, Usage: "commands that may wait in a partition"},
		&cli.GenericFlag{Category: aboutStorage, Name: "log-pending-bytes", Value: &byteSize{n: d.Storage.LogPendingBytes}, Usage: "what may wait for the disk in a private log"},
		&cli.GenericFlag{Category: aboutStorage, Name: "log-cache-bytes", Value: &byteSize{n: d.Storage.LogCacheBytes}, Usage: "recent entries of a private log kept in memory"},
		&cli.GenericFlag{Category: aboutStorage, Name: "index-cache-bytes", Value: &byteSize{n: d.Storage.IndexCacheBytes, canOff: true}, Usage: "table indexes of a partition kept in memory; off: no bound"},
		&cli.IntFlag{Category: aboutStorage, Name: "sync-workers", Value: d.Storage.SyncWorkers, Usage: "private logs synced at the same time; more start sooner, fewer gather more into each sync"},
		&cli.GenericFlag{Category: aboutStorage, Name: "log-journal-bytes", Value: &byteSize{n: d.Storage.LogJournalBytes, canOff: true}, Usage: "size of a data folder's journal, which makes many private logs durable with one sync; off: each log syncs itself"},
		&cli.BoolFlag{Category: aboutStorage, Name: "accept-journal-loss", Usage: "start in spite of a damaged or missing journal, without the acknowledged writes that only it holds"},
	}
}

func processFlags(d node.Options) []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Category: aboutProcess, Name: "start-timeout", Value: d.StartTimeout, Usage: "deadline of each start-up phase; opening replicas gets ten times as long"},
		&cli.DurationFlag{Category: aboutProcess, Name: "shutdown-timeout", Value: 8 * time.Second, Usage: "how long stopping may take"},
		&cli.StringFlag{Category: aboutProcess, Name: "log-level", Value: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.StringFlag{Category: aboutProcess, Name: "log-format", Value: "text", Usage: "`FORMAT`: text or json"},
	}
}

func run(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	opts, err := nodeOptions(c)
	if err != nil {
		return err
	}
	n, err := node.New(opts)
	if err != nil {
		return err
	}
	startErr := n.Start(c.Context)
	if startErr == nil {
		<-c.Context.Done()
		opts.Logger.Info("told to stop", "why", context.Cause(c.Context).Error(), "within", c.Duration("shutdown-timeout").String())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), c.Duration("shutdown-timeout"))
	defer cancel()
	stopErr := n.Stop(ctx)
	var late *node.StopError
	if errors.As(stopErr, &late) {
		stopErr = fmt.Errorf("--shutdown-timeout %s: %w", c.Duration("shutdown-timeout"), stopErr)
	}
	if errors.Is(startErr, context.Canceled) && c.Context.Err() != nil {
		startErr = nil // told to stop while starting: not a failure
	}
	return errors.Join(startErr, stopErr)
}

// nodeOptions turns the flags of run into options.
func nodeOptions(c *cli.Context) (node.Options, error) {
	if err := refuseZero(c, "listen", "admin", "peer", "partitions", "cluster-id", "max-admin-connections", "max-peer-connections", "max-peer-streams",
		"max-clients", "max-value-size", "max-request-size", "max-arguments", "max-inline-size", "max-command-size", "max-reply-size", "max-buffer-memory",
		"max-pipeline", "client-write-timeout", "client-request-timeout", "client-busy-timeout", "workers", "low-limit", "max-queued", "max-parked", "slice",
		"write-target", "dup-tail-total-bytes", "dup-batch-bytes", "dup-window-bytes", "dup-window-batches", "dup-read-ahead-bytes", "dup-receive-streams",
		"dup-receive-bytes", "checkpoint-keep", "checkpoint-chain", "checkpoint-parallel", "checkpoint-parallel-min", "drop-grace", "gc-rate", "disk-low-bytes", "disk-critical-bytes", "segment-bytes",
		"memtable-bytes", "partition-queue", "log-pending-bytes", "log-cache-bytes", "sync-workers", "start-timeout", "shutdown-timeout"); err != nil {
		return node.Options{}, err
	}
	if slices.Contains(c.StringSlice("data-dir"), "") {
		return node.Options{}, &node.FlagError{Flag: "data-dir", Value: `""`, Reason: "must not be empty"}
	}
	logger, err := newLogger(c.App.ErrWriter, c.String("log-level"), c.String("log-format"))
	if err != nil {
		return node.Options{}, err
	}
	if p := c.Uint("partitions"); p > 1024 {
		return node.Options{}, &node.FlagError{Flag: "partitions", Value: fmt.Sprint(p), Reason: "must be between 1 and 1024"}
	}
	if t := c.Duration("shutdown-timeout"); t < 100*time.Millisecond || t > time.Hour {
		return node.Options{}, &node.FlagError{Flag: "shutdown-timeout", Value: t.String(), Reason: "must be between 100ms and 1h"}
	}
	o := node.Options{
		DataDirs:          dataDirs(c),
		AcceptJournalLoss: c.Bool("accept-journal-loss"),
		Partitions:        uint32(c.Uint("partitions")),
		ClusterID:         c.Uint64("cluster-id"),
		Listen:            c.String("listen"),
		Admin:             c.String("admin"),
		Peer:              c.String("peer"),
		RequirePass:       c.String("requirepass"),
		PeerTLSCert:       c.String("peer-tls-cert"), PeerTLSKey: c.String("peer-tls-key"), PeerTLSCA: c.String("peer-tls-ca"),
		MaxAdminConnections: c.Int("max-admin-connections"), MaxPeerConnections: c.Int("max-peer-connections"), MaxPeerStreams: c.Int("max-peer-streams"),
		Clients:               clientLimits(c),
		Workers:               c.Int("workers"),
		LowLimit:              countOrOff(c, "low-limit"),
		MaxQueued:             c.Int("max-queued"),
		MaxParked:             c.Int("max-parked"),
		MaxWait:               durationOrOff(c, "max-wait"),
		LowShare:              shareOrOff(c, "low-share"),
		Slice:                 c.Duration("slice"),
		IORate:                bytesOf(c, "io-rate"),
		TaskPriority:          c.StringSlice("task-priority"),
		Task:                  c.StringSlice("task"),
		Adaptive:              c.Bool("adaptive"),
		WriteTarget:           c.Duration("write-target"),
		DupTailBytes:          bytesOf(c, "dup-tail-bytes"),
		DupBatchBytes:         bytesOf(c, "dup-batch-bytes"),
		DupWindowBytes:        bytesOf(c, "dup-window-bytes"),
		Dup:                   dupLimits(c),
		CheckpointPeriod:      durationOrOff(c, "checkpoint-period"),
		CheckpointKeep:        c.Int("checkpoint-keep"),
		CheckpointChain:       countOrOff(c, "checkpoint-chain"),
		CheckpointParallel:    c.Int("checkpoint-parallel"),
		CheckpointParallelMin: c.Int("checkpoint-parallel-min"),
		CheckpointShare:       shareOrOff(c, "checkpoint-share"),
		CheckpointStore:       c.String("checkpoint-store"),
		CheckpointKeepFor:     c.Duration("checkpoint-keep-for"),
		DropGrace:             c.Duration("drop-grace"),
		GCRate:                bytesOf(c, "gc-rate"),
		SegmentBytes:          bytesOf(c, "segment-bytes"),
		MemtableBytes:         bytesOf(c, "memtable-bytes"),
		Storage:               storageLimits(c),
		DiskLowBytes:          uint64(bytesOf(c, "disk-low-bytes")),
		DiskCriticalBytes:     uint64(bytesOf(c, "disk-critical-bytes")),
		StartTimeout:          c.Duration("start-timeout"),
		Logger:                logger,
	}
	for _, flag := range c.StringSlice("duplicate-to") {
		remote, err := node.ParseRemote(flag)
		if err != nil {
			return node.Options{}, err
		}
		o.DuplicateTo = append(o.DuplicateTo, remote)
	}
	if err := node.SetFailModes(o.DuplicateTo, c.StringSlice("dup-fail-mode")); err != nil {
		return node.Options{}, err
	}
	return o, nil
}

func clientLimits(c *cli.Context) node.ClientLimits {
	return node.ClientLimits{
		MaxClients:      c.Int("max-clients"),
		MaxValueBytes:   int(bytesOf(c, "max-value-size")),
		MaxRequestBytes: int(bytesOf(c, "max-request-size")),
		MaxArguments:    c.Int("max-arguments"),
		MaxInlineBytes:  int(bytesOf(c, "max-inline-size")),
		MaxCommandBytes: int(bytesOf(c, "max-command-size")),
		MaxReplyBytes:   int(bytesOf(c, "max-reply-size")),
		MaxBufferBytes:  bytesOf(c, "max-buffer-memory"),
		MaxPipeline:     c.Int("max-pipeline"),
		WriteTimeout:    c.Duration("client-write-timeout"),
		RequestTimeout:  c.Duration("client-request-timeout"),
		IdleTimeout:     durationOrOff(c, "client-idle-timeout"),
		BusyTimeout:     c.Duration("client-busy-timeout"),
	}
}

func dupLimits(c *cli.Context) node.DupLimits {
	return node.DupLimits{
		TailTotalBytes: bytesOf(c, "dup-tail-total-bytes"),
		WindowBatches:  c.Int("dup-window-batches"),
		ReadAheadBytes: bytesOf(c, "dup-read-ahead-bytes"),
		ReceiveStreams: c.Int("dup-receive-streams"),
		ReceiveBytes:   bytesOf(c, "dup-receive-bytes"),
	}
}

func storageLimits(c *cli.Context) node.StorageLimits {
	return node.StorageLimits{
		QueueCommands:   c.Int("partition-queue"),
		LogPendingBytes: bytesOf(c, "log-pending-bytes"),
		LogCacheBytes:   bytesOf(c, "log-cache-bytes"),
		IndexCacheBytes: bytesOf(c, "index-cache-bytes"),
		SyncWorkers:     c.Int("sync-workers"),
		LogJournalBytes: bytesOf(c, "log-journal-bytes"),
	}
}

// refuseZero refuses an explicit zero or empty value where the options would quietly take their default instead.
func refuseZero(c *cli.Context, flags ...string) error {
	for _, name := range flags {
		if !c.IsSet(name) {
			continue
		}
		switch value := fmt.Sprint(c.Value(name)); value {
		case "":
			return &node.FlagError{Flag: name, Value: `""`, Reason: "must not be empty"}
		case "0", "0s":
			return &node.FlagError{Flag: name, Value: "0", Reason: "must not be zero"}
		}
	}
	return nil
}
