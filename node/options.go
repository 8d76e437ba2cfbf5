package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"time"

	"replicanode/duplication"
	"replicanode/tasks"
)

// FlagError says which setting was wrong, with which value, and what to do. The command line shows it as one line.
type FlagError struct {
	Flag   string
	Value  string
	Reason string
}

func (e *FlagError) Error() string {
	return fmt.Sprintf("--%s %s: %s", e.Flag, e.Value, e.Reason)
}

// Options configures a node. The zero value of a field means its default; DefaultOptions shows them all.
type Options struct {
	// DataDir is the data folder of a node that has one. Default "data".
	DataDir string
	// DataDirs are the data folders of a node that has several, each on a disk of its own; they replace DataDir. Default: DataDir.
	DataDirs []string
	// AcceptJournalLoss starts in spite of a damaged or missing journal of the private logs, without the acknowledged writes that only it holds.
	AcceptJournalLoss bool
	// Partitions is the number of partitions of a new data folder, 1 to 1024; an existing folder keeps its own, and a differing
	// number is refused. Default 8.
	Partitions uint32
	// ClusterID names the cluster in duplication, 1 to 2^53-1. Default: random for a new folder.
	ClusterID uint64

	// Listen, Admin and Peer are the addresses (host:port, port 0 picks one) for Redis clients, operators and other nodes.
	// Defaults 127.0.0.1:6380, 127.0.0.1:9180, 127.0.0.1:7380.
	Listen, Admin, Peer string
	// RequirePass is the password clients and operators must give. Default none; required to listen beyond loopback.
	RequirePass string
	// PeerTLSCert, PeerTLSKey and PeerTLSCA are PEM files for mutual TLS between nodes; all or none. Default none; required to
	// serve peers beyond loopback.
	PeerTLSCert, PeerTLSKey, PeerTLSCA string
	// Clients bounds what clients may ask for and hold.
	Clients ClientLimits
	// MaxAdminConnections and MaxPeerConnections bound the connections of operators and of other nodes. Defaults 256.
	MaxAdminConnections, MaxPeerConnections int
	// MaxPeerStreams bounds the calls at once on one connection of another node. Default 1024.
	MaxPeerStreams int

	// Workers is the number of slots of the long pool. Default 4, or the number of processors when greater.
	Workers int
	// LowLimit bounds how many slots LOW tasks may hold, less than Workers unless there is a single one; negative sets no bound,
	// which is for comparisons: LOW may then hold all slots. Default Workers-1 (at least 1).
	LowLimit int
	// MaxQueued bounds each queue of the long pool. Default 65,536.
	MaxQueued int
	// MaxParked bounds, per priority, the tasks that have started and hold no slot. Default 1024.
	MaxParked int
	// IORate bounds the bytes a second that LOW and COMMON tasks read and write; negative sets no bound. Default no bound.
	IORate int64
	// MaxWait is how long a task waits before it is treated one priority higher; negative turns the rule off. Default 30 s.
	MaxWait time.Duration
	// LowShare is the share of slot time that LOW is sure of, 0 to 0.5; negative turns the rule off. Default 0.05.
	LowShare float64
	// Slice is how long a task runs before it looks whether something more urgent waits. Default 10 ms.
	Slice time.Duration
	// TaskPriority overrides the priority of task codes, each "code=low|common|high".
	TaskPriority []string
	// Task overrides any field of task specs, each "code.field=value".
	Task []string
	// Adaptive lets a controller move priorities and LOW's limits by load. Default off; it can be switched while the node runs.
	Adaptive bool
	// WriteTarget is the p99 of clients' writes above which maintenance shrinks: fewer checkpoints at once and, with Adaptive,
	// fewer slots and bytes for LOW. Default 50 ms.
	WriteTarget time.Duration

	// DuplicateTo lists remotes to ship every mutation to.
	DuplicateTo []duplication.Remote
	// DupTailBytes bounds the in-memory tail of recent mutations per partition; 0 means the default, negative none. Default 4 MiB.
	DupTailBytes int64
	// DupBatchBytes bounds one shipped batch. Default 256 KiB.
	DupBatchBytes int64
	// DupWindowBytes bounds what is shipped and not yet confirmed, per partition and remote. Default 4 MiB.
	DupWindowBytes int64
	// Dup bounds what duplication holds besides.
	Dup DupLimits

	// CheckpointPeriod is the time between checkpoints of a partition; negative turns periodic ones off. Default 1 h.
	CheckpointPeriod time.Duration
	// CheckpointStore is where checkpoints are kept: a folder, or s3://bucket/prefix?endpoint=URL as package s3store reads it. Default
	// checkpoints in the (first) data folder.
	CheckpointStore string
	// CheckpointKeepFor keeps younger checkpoints whatever their number. Default 0: the number decides alone.
	CheckpointKeepFor time.Duration
	// CheckpointKeep is how many checkpoints of a partition are kept. Default 2.
	CheckpointKeep int
	// CheckpointChain bounds how many checkpoints of a partition hold only what changed since the one before, until the next full
	// one; negative makes full ones only. Default 6. The first one after a start is full.
	CheckpointChain int
	// CheckpointParallel bounds the checkpoints made at once. Default 32.
	CheckpointParallel int
	// CheckpointParallelMin is how many checkpoints are made at once even when clients wait or disks are short, 1 to
	// CheckpointParallel. Default 1; equal to CheckpointParallel, their number does not follow the load.
	CheckpointParallelMin int
	// CheckpointShare is the part of the processors that all checkpoints and sweeps of databases together take at most while clients are
	// served, above 0 and at most 1; negative: what they can get. They take less, down to a tenth of it, while work waits for a processor or little is idle. Default 0.15.
	CheckpointShare float64
	// DropGrace is how long the folder of a dropped replica is kept. Default 24 h.
	DropGrace time.Duration
	// GCRate is how many bytes a second are deleted while there is little to delete and much space. Default 32 MiB.
	GCRate int64
	// SegmentBytes is the size of a private log segment. Default 16 MiB.
	SegmentBytes int64
	// MemtableBytes is the size of a partition's badger memtable. Default 16 MiB.
	MemtableBytes int64
	// Storage bounds what partitions hold in memory.
	Storage StorageLimits

	// DiskLowBytes and DiskCriticalBytes are the free bytes below which GC hurries and below which writes are refused. Defaults 10 %
	// of the disk and at most 20 GiB, and 3 % and at most 4 GiB.
	DiskLowBytes, DiskCriticalBytes uint64

	// StartTimeout bounds each start-up phase but the opening of replicas, which gets ten times as long. Default 30 s.
	StartTimeout time.Duration
	// Logger receives the node's log; nil discards.
	Logger *slog.Logger
}

// DefaultOptions returns the defaults, in force for every field left zero.
func DefaultOptions() Options {
	var o Options
	o.EnsureDefaults()
	return o
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	o.DataDir = cmp.Or(o.DataDir, "data")
	if len(o.DataDirs) == 0 {
		o.DataDirs = []string{o.DataDir}
	}
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:6380")
	o.Admin = cmp.Or(o.Admin, "127.0.0.1:9180")
	o.Peer = cmp.Or(o.Peer, "127.0.0.1:7380")
	o.ensureLimits()
	o.Workers = cmp.Or(o.Workers, max(4, runtime.NumCPU()))
	o.LowLimit = cmp.Or(o.LowLimit, max(1, o.Workers-1))
	o.MaxQueued = cmp.Or(o.MaxQueued, 65_536)
	o.MaxParked = cmp.Or(o.MaxParked, 1024)
	o.IORate = cmp.Or(o.IORate, -1)
	o.MaxWait = cmp.Or(o.MaxWait, 30*time.Second)
	o.LowShare = cmp.Or(o.LowShare, 0.05)
	o.Slice = cmp.Or(o.Slice, 10*time.Millisecond)
	o.WriteTarget = cmp.Or(o.WriteTarget, 50*time.Millisecond)
	o.DupTailBytes = cmp.Or(o.DupTailBytes, 4<<20)
	o.DupBatchBytes = cmp.Or(o.DupBatchBytes, 256<<10)
	o.DupWindowBytes = cmp.Or(o.DupWindowBytes, 4<<20)
	o.CheckpointPeriod = cmp.Or(o.CheckpointPeriod, time.Hour)
	o.CheckpointKeep = cmp.Or(o.CheckpointKeep, 2)
	o.CheckpointChain = cmp.Or(o.CheckpointChain, 6)
	o.CheckpointParallel = cmp.Or(o.CheckpointParallel, 32)
	o.CheckpointParallelMin = cmp.Or(o.CheckpointParallelMin, 1)
	o.CheckpointShare = cmp.Or(o.CheckpointShare, 0.15)
	o.GCRate = cmp.Or(o.GCRate, 32<<20)
	o.DropGrace = cmp.Or(o.DropGrace, 24*time.Hour)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 16<<20)
	o.MemtableBytes = cmp.Or(o.MemtableBytes, 16<<20)
	o.StartTimeout = cmp.Or(o.StartTimeout, 30*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// newFolderPartitions is how many partitions a new data folder gets when nothing is asked for.
const newFolderPartitions = 8

// Validate checks every field after EnsureDefaults and returns a *FlagError for the first that can't work.
func (o *Options) Validate() error {
	checks := []error{
		inRange("partitions", int64(o.Partitions), 0, 1024),
		inRange("cluster-id", int64(o.ClusterID), 0, 1<<53-1),
		o.validateLimits(),
		o.validatePool(),
		inRange("dup-batch-bytes", o.DupBatchBytes, 4<<10, 16<<20),
		inRange("dup-window-bytes", o.DupWindowBytes, o.DupBatchBytes, 1<<30),
		inRange("dup-tail-bytes", o.DupTailBytes, -1, 1<<32),
		validateStore(o.CheckpointStore),
		inRange("checkpoint-keep", int64(o.CheckpointKeep), 1, 10_000),
		inRange("checkpoint-chain", max(0, int64(o.CheckpointChain)), 0, 100),
		inRange("checkpoint-parallel", int64(o.CheckpointParallel), 1, 1024),
		inRange("checkpoint-parallel-min", int64(o.CheckpointParallelMin), 1, int64(o.CheckpointParallel)),
		inRange("gc-rate", o.GCRate, 64<<10, 1<<40),
		inRange("segment-bytes", o.SegmentBytes, 1<<20, 1<<30),
		inRange("memtable-bytes", o.MemtableBytes, 8<<20, 1<<30),
		o.validateTimes(),
		o.validateWatermarks(),
		o.validateAddresses(),
		o.validateTLS(),
		o.validateTaskPriorities(),
		o.validateRemotes(),
		o.validateTogether(),
	}
	return firstError(checks...)
}

func inRange(flag string, v, low, high int64) error {
	if v < low || v > high {
		return &FlagError{Flag: flag, Value: strconv.FormatInt(v, 10), Reason: fmt.Sprintf("must be between %d and %d", low, high)}
	}
	return nil
}

func (o *Options) validatePool() error {
	if err := inRange("workers", int64(o.Workers), 1, 4096); err != nil {
		return err
	}
	if o.LowLimit == 0 || o.LowLimit > max(1, o.Workers-1) {
		return &FlagError{Flag: "low-limit", Value: strconv.Itoa(o.LowLimit), Reason: fmt.Sprintf("must be at least 1 and less than --workers %d: one slot is kept for what is more urgent", o.Workers)}
	}
	if !(o.CheckpointShare <= 1) {
		return &FlagError{Flag: "checkpoint-share", Value: fmt.Sprint(o.CheckpointShare), Reason: "must be above 0 and at most 1 (all processors), or off"}
	}
	if !(o.LowShare <= 0.5) { // so that NaN is refused, too
		return &FlagError{Flag: "low-share", Value: fmt.Sprint(o.LowShare), Reason: "must be above 0 and at most 0.5 (half of the slot time), or off"}
	}
	return firstError(
		inRange("max-queued", int64(o.MaxQueued), 1, 1<<24),
		inRange("max-parked", int64(o.MaxParked), 1, 1<<20),
		inRange("io-rate", o.IORate, -1, 1<<40),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// longest is more than any time that makes sense, and little enough to be multiplied.
const longest = 10 * 365 * 24 * time.Hour

func (o *Options) validateTimes() error {
	return firstError(
		within("slice", o.Slice, 100*time.Microsecond, 10*time.Second),
		within("write-target", o.WriteTarget, time.Millisecond, time.Minute),
		within("drop-grace", o.DropGrace, time.Second, longest),
		withinOrOff("max-wait", o.MaxWait, time.Millisecond, longest),
		within("start-timeout", o.StartTimeout, time.Second, 24*time.Hour),
		withinOrOff("checkpoint-period", o.CheckpointPeriod, time.Second, longest),
		within("checkpoint-keep-for", o.CheckpointKeepFor, 0, longest),
		withinOrOff("client-idle-timeout", o.Clients.IdleTimeout, 100*time.Millisecond, longest),
	)
}

// within checks a duration that can't be turned off.
func within(flag string, v, low, high time.Duration) error {
	if v < low || v > high {
		return &FlagError{Flag: flag, Value: v.String(), Reason: fmt.Sprintf("must be between %v and %v", low, high)}
	}
	return nil
}

// withinOrOff checks a duration that is off when it is negative.
func withinOrOff(flag string, v, low, high time.Duration) error {
	if v >= 0 && (v < low || v > high) {
		return &FlagError{Flag: flag, Value: v.String(), Reason: fmt.Sprintf("must be between %v and %v, or off", low, high)}
	}
	return nil
}

func (o *Options) validateWatermarks() error {
	if o.DiskLowBytes != 0 && o.DiskCriticalBytes > o.DiskLowBytes {
		return &FlagError{Flag: "disk-critical-bytes", Value: strconv.FormatUint(o.DiskCriticalBytes, 10), Reason: fmt.Sprintf("must not be greater than --disk-low-bytes %d: GC hurries before writes are refused", o.DiskLowBytes)}
	}
	return nil
}

// validateAddresses refuses to serve strangers: beyond loopback, clients and operators need a password and peers mutual TLS.
func (o *Options) validateAddresses() error {
	for _, a := range []struct{ flag, addr string }{{"listen", o.Listen}, {"admin", o.Admin}, {"peer", o.Peer}} {
		loopback, err := isLoopback(a.addr)
		if err != nil {
			return &FlagError{Flag: a.flag, Value: a.addr, Reason: err.Error()}
		}
		if loopback {
			continue
		}
		if a.flag != "peer" && o.RequirePass == "" {
			return &FlagError{Flag: a.flag, Value: a.addr, Reason: "listens beyond loopback without a password, so anybody on the network could read and delete the data; set --requirepass, or bind 127.0.0.1"}
		}
		if a.flag == "peer" && o.PeerTLSCert == "" {
			return &FlagError{Flag: a.flag, Value: a.addr, Reason: "serves peers beyond loopback without authentication; set --peer-tls-cert, --peer-tls-key and --peer-tls-ca, or bind 127.0.0.1"}
		}
	}
	return nil
}

func isLoopback(addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("not host:port (%w); for example 127.0.0.1:6380", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false, fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback(), nil
}

// tlsFlags are the three files of mutual TLS by flag.
func (o *Options) tlsFlags() [3]struct{ flag, name string } {
	return [3]struct{ flag, name string }{{"peer-tls-cert", o.PeerTLSCert}, {"peer-tls-key", o.PeerTLSKey}, {"peer-tls-ca", o.PeerTLSCA}}
}

func (o *Options) validateTLS() error {
	set, unset := "", ""
	for _, f := range o.tlsFlags() {
		if f.name != "" {
			set = f.flag
		} else {
			unset = f.flag
		}
	}
	if set != "" && unset != "" {
		return &FlagError{Flag: unset, Value: `""`, Reason: fmt.Sprintf("is missing: --%s is given, and mutual TLS needs --peer-tls-cert, --peer-tls-key and --peer-tls-ca together", set)}
	}
	return nil
}

func (o *Options) validateTaskPriorities() error {
	_, _, err := o.taskSpecs()
	return err
}

// taskSpecs is the table of task codes and what the options change of it.
func (o *Options) taskSpecs() ([]tasks.Spec, []tasks.Override, error) {
	usual, specs := DefaultOptions(), tasks.DefaultSpecs()
	var changes []tasks.Override
	change := func(field string, value any) {
		changes = append(changes, tasks.Override{Code: tasks.Checkpoint, Field: field, Value: fmt.Sprint(value)})
	}
	for i := range specs {
		if specs[i].Code == tasks.Checkpoint {
			specs[i].Period = usual.CheckpointPeriod
			specs[i].MaxStarted = usual.CheckpointParallel // the limit that follows resources decides below it
			change("period", max(0, o.CheckpointPeriod))
			change("max_started", o.CheckpointParallel)
		}
	}
	for _, f := range []struct {
		flag   string
		values []string
	}{{"task-priority", o.TaskPriority}, {"task", o.Task}} {
		for _, value := range f.values {
			override, err := tasks.ParseOverride(value)
			if err == nil && f.flag == "task-priority" && override.Field != "priority" {
				err = errors.New("wants CODE=LEVEL; other fields are set with --task CODE.FIELD=VALUE")
			}
			if err == nil {
				changes = append(changes, override)
				_, err = tasks.ApplyOverrides(specs, changes)
			}
			var wrong *tasks.OverrideError
			if errors.As(err, &wrong) {
				err = wrong.Err // the flag's value is the override
			}
			if err != nil {
				return nil, nil, &FlagError{Flag: f.flag, Value: value, Reason: err.Error()}
			}
		}
	}
	return specs, changes, nil
}

// bind opens a listener for one of the node's addresses.
func bind(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, &FlagError{Flag: flag, Value: addr, Reason: fmt.Sprintf("can't listen there: %v; choose another address or stop what uses it", err)}
	}
	return l, nil
}
