package replica

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/plog"
)

// Disk is a folder of partitions' folders, with what works there and nowhere else, so that a disk that hangs or fills up concerns
// its own partitions only.
type Disk struct {
	// Dir is the folder (DATA/partitions); created if absent. Required.
	Dir string
	// Syncer writes and syncs the private logs there. Required unless Err is set.
	Syncer *plog.Syncer
	// FS is the file system of the private logs; nil: that of Options.Log.
	FS vfs.FS
	// Err, if set, is why nothing there can be used: the disk's partitions fail with it, and nothing is read or written.
	Err error
}

// Options says what a Host hosts and how. Zero fields get the default named in their comment.
type Options struct {
	// Dir is the folder of the partitions' folders (DATA/partitions). Required unless there are Disks; created if absent.
	Dir string
	// Disks are the folders of the partitions' folders when there are several. Default: one, of Dir, Syncer and FS.
	Disks []Disk
	// Placement is the disk of each partition, as an index of Disks. Default: the first for all.
	Placement []int
	// Partitions is how many partitions the key space is split into, 1 to MaxPartitions. Default 8. A data folder
	// must always be opened with the number it was made with.
	Partitions uint32
	// MustExist are the partitions that have served from Dir before: one whose folder or log has vanished fails (MissingError)
	// instead of starting empty.
	MustExist []uint32
	// NodeID identifies this node among Voters; default 1.
	NodeID uint64
	// Voters are the nodes that bootstrap a partition that has no log yet. Default: this node alone. A partition
	// that exists knows its members itself.
	Voters []uint64
	// ClusterID is the origin that this cluster's mutations carry. Required, not 0.
	ClusterID uint64

	// Log is the template for the partitions' private logs; Syncer is required in it unless Syncer below is given.
	Log plog.Options
	// Syncer writes and syncs all private logs; overrides Log.Syncer. It must be started before and stopped after
	// the host, as must those of Disks.
	Syncer *plog.Syncer
	// FS is the file system of the private logs; overrides Log.FS. (badger always uses the operating system's.)
	FS vfs.FS
	// Transport reaches the other voters; may be nil when this node is the only one.
	Transport Transport
	// Runner runs the opening of partitions; default: all at once.
	Runner Runner

	// MaxKeyBytes bounds a key, and a hash key together with its field. Default and maximum 60 KiB.
	MaxKeyBytes int
	// MaxValueBytes bounds a string value; default 8 MiB, at most 64 MiB.
	MaxValueBytes int
	// MaxFieldValueBytes bounds the value of a hash field; default and maximum 768 KiB.
	MaxFieldValueBytes int
	// MaxMutationBytes bounds what one command may write, as encoded in a mutation: every field of a hash carries its key.
	// Default 16 MiB + MaxValueBytes, at least what a single operation at the limits above takes.
	MaxMutationBytes int
	// MaxDuplicatedBytes bounds an encoded duplicated batch. By default what a source with the same options may send:
	// BatchBytes + MaxMutationBytes, which is the largest mutation, gathered with GatherBytes of others.
	MaxDuplicatedBytes int

	// QueueCommands bounds the commands waiting in one partition; default 16384.
	QueueCommands int
	// BatchCommands and BatchBytes bound what one mutation gathers; a single command may exceed the bytes.
	// Defaults 1024 and 1 MiB.
	BatchCommands int
	BatchBytes    int
	// InFlight bounds the mutations of a partition which are proposed and not yet applied; default 2: while one is
	// synced, the next gathers what comes. More make mutations smaller, and so cost more syncs. All of them together, at their
	// largest, must fit into plog.MaxBatchBytes.
	InFlight int
	// ApplyBytes bounds the entries handed to the state at once; default 4 MiB.
	ApplyBytes int

	// MemTableBytes is badger's memtable size per partition; default 16 MiB, at least 8 MiB. Partitions' differ by up to an
	// eighth below it, so that they are not full all at once. What is not durable yet
	// (to be replayed after a crash) is up to about five of them.
	MemTableBytes int64
	// IndexCacheBytes bounds the table indexes a partition keeps in memory; 0 (default) keeps all of them.
	IndexCacheBytes int64

	// ReserveBytes of each disk are left to what was accepted already, to tables and logs: with less, writes of clients are refused, and
	// with less than half of it those of other clusters. Default: a memtable for each partition there, at least 64 MiB, but at
	// most a fiftieth of the disk.
	ReserveBytes int64

	// TombstoneTTL is how long deletes are remembered for duplication to compare with; default 24 h. The same on all voters. A remote that
	// was away for longer may bring back what was deleted here meanwhile.
	TombstoneTTL time.Duration
	// MaxClockSkew bounds how far in the future a duplicated mutation may be stamped; default 1 minute.
	MaxClockSkew time.Duration

	// DurableAdvanced, if set, is told when a partition's durable decree has moved, so that its log can be released. It must
	// not block and must not call into this package.
	DurableAdvanced func(partition uint32)

	// Tick is Raft's clock step; default 100 ms. ElectionTicks (default 10) without a leader start an election, and a
	// leader beats every HeartbeatTicks (default 1).
	Tick           time.Duration
	ElectionTicks  int
	HeartbeatTicks int

	// Clock replaces time.Now for expiry and timestamps.
	Clock func() time.Time
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

const (
	maxKeyBytes        = 60 << 10
	maxFieldValueBytes = 768 << 10
	maxValueBytes      = 64 << 20
	minMemTableBytes   = 8 << 20
	// opOverhead is more than an operation takes beside its key, field and value; batchOverhead more than a batch and a
	// mutation in it take beside its operations.
	opOverhead    = 32
	batchOverhead = 1 << 10
)

// GatherBytes bounds the mutations that a source of duplication gathers in a batch before the last one, each with what the batch
// adds to it.
const GatherBytes = 16 << 20

// EnsureDefaults fills in the defaults.
func (o *Options) EnsureDefaults() {
	o.Partitions = cmp.Or(o.Partitions, 8)
	o.NodeID = cmp.Or(o.NodeID, 1)
	if len(o.Voters) == 0 {
		o.Voters = []uint64{o.NodeID}
	}
	o.Syncer = cmp.Or(o.Syncer, o.Log.Syncer)
	if len(o.Disks) == 0 && o.Dir != "" {
		o.Disks = []Disk{{Dir: o.Dir, Syncer: o.Syncer, FS: o.FS}}
	}
	if o.Placement == nil {
		o.Placement = make([]int, o.Partitions)
	}
	if o.Runner == nil {
		o.Runner = directRunner{}
	}
	o.MaxKeyBytes = cmp.Or(o.MaxKeyBytes, maxKeyBytes)
	o.MaxValueBytes = cmp.Or(o.MaxValueBytes, 8<<20)
	o.MaxFieldValueBytes = cmp.Or(o.MaxFieldValueBytes, maxFieldValueBytes)
	o.QueueCommands = cmp.Or(o.QueueCommands, 16384)
	o.BatchCommands = cmp.Or(o.BatchCommands, 1024)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	o.MaxMutationBytes = cmp.Or(o.MaxMutationBytes, 16<<20+o.MaxValueBytes)
	o.MaxDuplicatedBytes = cmp.Or(o.MaxDuplicatedBytes, o.BatchBytes+o.MaxMutationBytes+GatherBytes+batchOverhead)
	o.InFlight = cmp.Or(o.InFlight, 2)
	o.ApplyBytes = cmp.Or(o.ApplyBytes, 4<<20)
	o.MemTableBytes = cmp.Or(o.MemTableBytes, 16<<20)
	o.TombstoneTTL = cmp.Or(o.TombstoneTTL, 24*time.Hour)
	o.MaxClockSkew = cmp.Or(o.MaxClockSkew, time.Minute)
	o.Tick = cmp.Or(o.Tick, 100*time.Millisecond)
	o.ElectionTicks = cmp.Or(o.ElectionTicks, 10)
	o.HeartbeatTicks = cmp.Or(o.HeartbeatTicks, 1)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with filled-in options.
func (o *Options) Validate() error {
	switch {
	case len(o.Disks) == 0:
		return errors.New("replica: Dir or Disks are required")
	case o.ClusterID == 0:
		return errors.New("replica: ClusterID is required")
	case o.Partitions > MaxPartitions:
		return fmt.Errorf("replica: %d partitions, the maximum is %d", o.Partitions, MaxPartitions)
	case !slices.Contains(o.Voters, o.NodeID):
		return fmt.Errorf("replica: node %d is not among its voters %v", o.NodeID, o.Voters)
	case len(o.Voters) > 1 && o.Transport == nil:
		return errors.New("replica: more than one voter needs a Transport")
	case o.ElectionTicks <= o.HeartbeatTicks:
		return fmt.Errorf("replica: ElectionTicks %d must exceed HeartbeatTicks %d", o.ElectionTicks, o.HeartbeatTicks)
	case o.MemTableBytes < minMemTableBytes:
		return fmt.Errorf("replica: MemTableBytes %d is below %d", o.MemTableBytes, minMemTableBytes)
	case o.ReserveBytes < 0:
		return fmt.Errorf("replica: ReserveBytes %d is negative", o.ReserveBytes)
	}
	return errors.Join(
		inRange("MaxKeyBytes", o.MaxKeyBytes, maxKeyBytes),
		inRange("MaxValueBytes", o.MaxValueBytes, maxValueBytes),
		inRange("MaxFieldValueBytes", o.MaxFieldValueBytes, maxFieldValueBytes),
		inRange("MaxMutationBytes", o.MaxMutationBytes, plog.MaxBatchBytes),
		inRange("MaxDuplicatedBytes", o.MaxDuplicatedBytes, plog.MaxBatchBytes),
		inRange("QueueCommands", o.QueueCommands, 1<<24),
		inRange("BatchCommands", o.BatchCommands, 1<<20),
		inRange("BatchBytes", o.BatchBytes, 64<<20),
		inRange("InFlight", o.InFlight, 1024),
		inRange("ApplyBytes", o.ApplyBytes, 1<<30),
		inRange("HeartbeatTicks", o.HeartbeatTicks, 1<<20),
		inRange("Tick", int(min(o.Tick, time.Hour)), int(time.Hour)),
		inRange("TombstoneTTL", int(o.TombstoneTTL/time.Second), 1<<30),
		inRange("MaxClockSkew", int(o.MaxClockSkew/time.Millisecond), 1<<40),
		o.validateMutations(),
		o.validateDisks(),
	)
}

func (o *Options) validateDisks() error {
	for _, d := range o.Disks {
		if d.Dir == "" || d.Syncer == nil && d.Err == nil {
			return fmt.Errorf("replica: Dir and Syncer are required of each disk, here %q", d.Dir)
		}
	}
	if len(o.Placement) != int(o.Partitions) {
		return fmt.Errorf("replica: %d partitions, but %d are placed", o.Partitions, len(o.Placement))
	}
	for id, disk := range o.Placement {
		if disk < 0 || disk >= len(o.Disks) {
			return fmt.Errorf("replica: partition %d is placed on disk %d of %d", id, disk, len(o.Disks))
		}
	}
	return nil
}

// validateMutations checks that every single operation fits into a mutation, and the largest mutations into the log.
func (o *Options) validateMutations() error {
	if least := o.MaxKeyBytes + max(o.MaxValueBytes, o.MaxFieldValueBytes) + opOverhead; o.MaxMutationBytes < least {
		return fmt.Errorf("replica: MaxMutationBytes is %d, the largest operation takes %d", o.MaxMutationBytes, least)
	}
	largest := max(o.BatchBytes+o.MaxMutationBytes, o.MaxDuplicatedBytes) + batchOverhead
	if o.InFlight*largest > plog.MaxBatchBytes {
		return fmt.Errorf("replica: %d mutations in flight of up to %d bytes exceed the log's limit of %d", o.InFlight, largest, plog.MaxBatchBytes)
	}
	return nil
}

func inRange(name string, v, most int) error {
	if v < 1 || v > most {
		return fmt.Errorf("replica: %s is %d, allowed are 1 to %d", name, v, most)
	}
	return nil
}
