package node

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/plog"
)

// ClientLimits bound what Redis clients may ask for and hold.
type ClientLimits struct {
	// MaxClients bounds connections. Default 10,000.
	MaxClients int
	// MaxValueBytes bounds one value (and one bulk of a request), 1 KiB to 64 MiB. Default 8 MiB.
	MaxValueBytes int
	// MaxRequestBytes bounds a whole request, up to 1 GiB. Default 64 MiB, or twice MaxValueBytes when that is more.
	MaxRequestBytes int
	// MaxArguments bounds the words of a command. Default 1,048,576.
	MaxArguments int
	// MaxInlineBytes bounds an inline command. Default 64 KiB.
	MaxInlineBytes int
	// MaxCommandBytes bounds what one command may write to one partition. Default 16 MiB + MaxValueBytes.
	MaxCommandBytes int
	// MaxReplyBytes bounds a reply, twice MaxValueBytes to 1 GiB. Default 128 MiB, or twice MaxValueBytes when that is more.
	MaxReplyBytes int
	// MaxBufferBytes bounds the buffers of all connections together, at least MaxRequestBytes. Default 1 GiB.
	MaxBufferBytes int64
	// MaxPipeline bounds the commands of a connection that are under way. Default 1024.
	MaxPipeline int
	// WriteTimeout bounds how long a client may take to accept replies. Default 30 s.
	WriteTimeout time.Duration
	// RequestTimeout bounds how long a client may take to send a request it has begun. Default 60 s.
	RequestTimeout time.Duration
	// IdleTimeout closes connections that send nothing for so long; negative never does. Default never.
	IdleTimeout time.Duration
	// BusyTimeout bounds how long a write waits for room in its partition's queue. Default 5 s.
	BusyTimeout time.Duration
}

// DupLimits bound what duplication holds, besides the tail, the batch and the window.
type DupLimits struct {
	// TailTotalBytes bounds the tails of all partitions together. Default 64 MiB.
	TailTotalBytes int64
	// WindowBatches bounds the unconfirmed batches per partition and remote. Default 8.
	WindowBatches int
	// ReadAheadBytes bounds what is read from a log and not sent, per partition and remote. Default 2 MiB.
	ReadAheadBytes int64
	// ReceiveStreams bounds the streams from other clusters. Default 4096.
	ReceiveStreams int
	// ReceiveBytes bounds the received batches that are being applied. Default 128 MiB.
	ReceiveBytes int64
}

// StorageLimits bound what partitions hold in memory.
type StorageLimits struct {
	// QueueCommands bounds the commands that wait in a partition. Default 16,384.
	QueueCommands int
	// LogPendingBytes bounds what waits for the disk in a partition's private log. Default 256 MiB.
	LogPendingBytes int64
	// LogCacheBytes bounds the recent entries that a partition's private log keeps in memory. Default 256 KiB.
	LogCacheBytes int64
	// IndexCacheBytes bounds the table indexes that a partition keeps in memory; negative keeps all. Default all.
	IndexCacheBytes int64
	// SyncWorkers bounds the private logs that are synced at the same time. More of them start sooner; fewer gather more into each sync. Default 4.
	SyncWorkers int
	// LogJournalBytes is the size of the journal that makes what is appended to several private logs of a data folder durable with one sync; negative:
	// each log syncs itself. Default 32 MiB.
	LogJournalBytes int64
}

func (o *Options) ensureLimits() {
	c := &o.Clients
	c.MaxClients = cmp.Or(c.MaxClients, 10_000)
	c.MaxValueBytes = cmp.Or(c.MaxValueBytes, 8<<20)
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, max(64<<20, 2*c.MaxValueBytes))
	c.MaxArguments = cmp.Or(c.MaxArguments, 1<<20)
	c.MaxInlineBytes = cmp.Or(c.MaxInlineBytes, 64<<10)
	c.MaxCommandBytes = cmp.Or(c.MaxCommandBytes, 16<<20+c.MaxValueBytes)
	c.MaxReplyBytes = cmp.Or(c.MaxReplyBytes, max(128<<20, 2*c.MaxValueBytes))
	c.MaxBufferBytes = cmp.Or(c.MaxBufferBytes, 1<<30)
	c.MaxPipeline = cmp.Or(c.MaxPipeline, 1024)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, time.Minute)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, -1)
	c.BusyTimeout = cmp.Or(c.BusyTimeout, 5*time.Second)
	o.MaxAdminConnections = cmp.Or(o.MaxAdminConnections, 256)
	o.MaxPeerConnections = cmp.Or(o.MaxPeerConnections, 256)
	o.MaxPeerStreams = cmp.Or(o.MaxPeerStreams, 1024)
	d := &o.Dup
	d.TailTotalBytes = cmp.Or(d.TailTotalBytes, 64<<20)
	d.WindowBatches = cmp.Or(d.WindowBatches, 8)
	d.ReadAheadBytes = cmp.Or(d.ReadAheadBytes, 2<<20)
	d.ReceiveStreams = cmp.Or(d.ReceiveStreams, 4096)
	d.ReceiveBytes = cmp.Or(d.ReceiveBytes, 128<<20)
	s := &o.Storage
	s.QueueCommands = cmp.Or(s.QueueCommands, 16_384)
	s.LogPendingBytes = cmp.Or(s.LogPendingBytes, 256<<20)
	s.LogCacheBytes = cmp.Or(s.LogCacheBytes, 256<<10)
	s.IndexCacheBytes = cmp.Or(s.IndexCacheBytes, -1)
	s.SyncWorkers = cmp.Or(s.SyncWorkers, 4)
	s.LogJournalBytes = cmp.Or(s.LogJournalBytes, 32<<20)
}

func (o *Options) validateLimits() error {
	c, d, s := &o.Clients, &o.Dup, &o.Storage
	return firstError(
		inRange("max-clients", int64(c.MaxClients), 1, 1_000_000),
		inRange("max-value-size", int64(c.MaxValueBytes), 1<<10, 64<<20),
		inRange("max-request-size", int64(c.MaxRequestBytes), int64(c.MaxValueBytes)+1<<10, 1<<30),
		inRange("max-arguments", int64(c.MaxArguments), 16, 1<<24),
		inRange("max-inline-size", int64(c.MaxInlineBytes), 1<<10, 16<<20),
		inRange("max-command-size", int64(c.MaxCommandBytes), int64(c.MaxValueBytes)+1<<20, 1<<30),
		inRange("max-reply-size", int64(c.MaxReplyBytes), 2*int64(c.MaxValueBytes), 1<<30),
		inRange("max-buffer-memory", c.MaxBufferBytes, int64(c.MaxRequestBytes), 1<<40),
		inRange("max-pipeline", int64(c.MaxPipeline), 1, 1<<16),
		within("client-write-timeout", c.WriteTimeout, 100*time.Millisecond, 24*time.Hour),
		within("client-request-timeout", c.RequestTimeout, 100*time.Millisecond, 24*time.Hour),
		within("client-busy-timeout", c.BusyTimeout, time.Millisecond, time.Hour),
		inRange("max-admin-connections", int64(o.MaxAdminConnections), 1, 65_536),
		inRange("max-peer-connections", int64(o.MaxPeerConnections), 1, 65_536),
		inRange("max-peer-streams", int64(o.MaxPeerStreams), 1, 1<<20),
		inRange("dup-tail-total-bytes", d.TailTotalBytes, 1<<10, 1<<40),
		inRange("dup-window-batches", int64(d.WindowBatches), 1, 4096),
		inRange("dup-read-ahead-bytes", d.ReadAheadBytes, 4<<10, 1<<30),
		inRange("dup-receive-streams", int64(d.ReceiveStreams), 1, 1<<20),
		inRange("dup-receive-bytes", d.ReceiveBytes, 1<<20, 1<<40),
		inRange("partition-queue", int64(s.QueueCommands), 1, 1<<20),
		inRange("log-pending-bytes", s.LogPendingBytes, 1<<20, 1<<36),
		inRange("log-cache-bytes", s.LogCacheBytes, 4<<10, 1<<34),
		inRange("index-cache-bytes", s.IndexCacheBytes, -1, 1<<40),
		inRange("sync-workers", int64(s.SyncWorkers), 1, 1024),
		validJournal(s.LogJournalBytes),
	)
}

func validJournal(bytes int64) error {
	if bytes < 0 {
		return nil
	}
	return inRange("log-journal-bytes", bytes, plog.MinJournalBytes, plog.MaxJournalBytes)
}

// Limit is one bound of a node: its flag, its value, and the metric that shows how much of it is taken or how often it was hit.
type Limit struct {
	Flag  string
	Value float64 // in the flag's unit, times in seconds; negative: no bound
	Usage string
}

// Limits lists the bounds of a node with these options. Each is also the metric replicanode_node_limit{flag="…"}.
func (o *Options) Limits() []Limit {
	c, d, s := &o.Clients, &o.Dup, &o.Storage
	const (
		connections = "replicanode_server_connections"
		refused     = "replicanode_server_refused_total"
		malformed   = "replicanode_server_protocol_errors_total"
		failed      = "replicanode_server_error_replies_total"
		buffers     = "replicanode_server_buffer_bytes"
		inFlight    = "replicanode_duplication_in_flight_bytes"
	)
	return []Limit{
		{"max-clients", float64(c.MaxClients), connections},
		{"max-value-size", float64(c.MaxValueBytes), malformed},
		{"max-request-size", float64(c.MaxRequestBytes), malformed},
		{"max-arguments", float64(c.MaxArguments), malformed},
		{"max-inline-size", float64(c.MaxInlineBytes), malformed},
		{"max-command-size", float64(c.MaxCommandBytes), failed},
		{"max-reply-size", float64(c.MaxReplyBytes), failed},
		{"max-buffer-memory", float64(c.MaxBufferBytes), buffers},
		{"max-pipeline", float64(c.MaxPipeline), buffers},
		{"client-write-timeout", c.WriteTimeout.Seconds(), refused},
		{"client-request-timeout", c.RequestTimeout.Seconds(), refused},
		{"client-idle-timeout", secondsOrOff(c.IdleTimeout), connections},
		{"client-busy-timeout", c.BusyTimeout.Seconds(), "replicanode_replica_busy_total"},
		{"max-admin-connections", float64(o.MaxAdminConnections), "replicanode_admin_connections"},
		{"max-peer-connections", float64(o.MaxPeerConnections), "replicanode_peer_connections"},
		{"max-peer-streams", float64(o.MaxPeerStreams), "replicanode_peer_streams"},
		{"workers", float64(o.Workers), "replicanode_threadpool_slots"},
		{"low-limit", float64(o.LowLimit), "replicanode_threadpool_slots"},
		{"max-queued", float64(o.MaxQueued), "replicanode_threadpool_queued_tasks"},
		{"max-parked", float64(o.MaxParked), "replicanode_threadpool_parked_tasks"},
		{"io-rate", float64(o.IORate), "replicanode_threadpool_io_bytes_total"},
		{"dup-tail-bytes", float64(o.DupTailBytes), "replicanode_duplication_loaded_bytes_total"},
		{"dup-tail-total-bytes", float64(d.TailTotalBytes), "replicanode_duplication_loaded_bytes_total"},
		{"dup-batch-bytes", float64(o.DupBatchBytes), "replicanode_duplication_shipped_bytes_total"},
		{"dup-window-bytes", float64(o.DupWindowBytes), inFlight},
		{"dup-window-batches", float64(d.WindowBatches), inFlight},
		{"dup-read-ahead-bytes", float64(d.ReadAheadBytes), "replicanode_duplication_read_ahead_bytes"},
		{"dup-receive-streams", float64(d.ReceiveStreams), "replicanode_duplication_received_streams"},
		{"dup-receive-bytes", float64(d.ReceiveBytes), "replicanode_duplication_received_applying_bytes"},
		{"checkpoint-keep", float64(o.CheckpointKeep), "replicanode_checkpoint_pruned_total"},
		{"checkpoint-chain", float64(o.CheckpointChain), "replicanode_checkpoint_bytes_total"},
		{"checkpoint-parallel", float64(o.CheckpointParallel), "replicanode_checkpoint_running"},
		{"checkpoint-share", o.CheckpointShare, "replicanode_checkpoint_share_ratio"},
		{"checkpoint-parallel-min", float64(o.CheckpointParallelMin), "replicanode_checkpoint_running"},
		{"gc-rate", float64(o.GCRate), "replicanode_gc_replica_deleted_bytes_total"},
		{"segment-bytes", float64(o.SegmentBytes), "replicanode_plog_bytes"},
		{"memtable-bytes", float64(o.MemtableBytes), "replicanode_replica_replay_decrees"},
		{"partition-queue", float64(s.QueueCommands), "replicanode_replica_queued_commands"},
		{"log-pending-bytes", float64(s.LogPendingBytes), "replicanode_plog_pending_bytes"},
		{"log-cache-bytes", float64(s.LogCacheBytes), "replicanode_plog_read_bytes_total"},
		{"index-cache-bytes", float64(s.IndexCacheBytes), "process_resident_memory_bytes"},
		{"sync-workers", float64(s.SyncWorkers), "replicanode_plog_sync_seconds"},
		{"log-journal-bytes", float64(s.LogJournalBytes), "replicanode_plog_journal_fallbacks_total"},
	}
}

// secondsOrOff is -1 for a time that is turned off.
func secondsOrOff(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return d.Seconds()
}

// registerLimits shows the limits in force.
func (n *Node) registerLimits() {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "replicanode_node_limit",
		Help: "Limits in force by flag, in the flag's unit, times in seconds; negative: no bound.",
	}, []string{"flag"})
	for _, l := range n.opts.Limits() {
		gauge.WithLabelValues(l.Flag).Set(l.Value)
	}
	n.registry.MustRegister(gauge)
}
