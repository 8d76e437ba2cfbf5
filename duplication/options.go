package duplication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/peer"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// Defaults of Options.
const (
	DefaultTailBytes      = 4 << 20
	DefaultMaxTailBytes   = 64 << 20
	DefaultBatchBytes     = 1 << 20
	DefaultWindowBytes    = 8 << 20
	DefaultWindowBatches  = 8
	DefaultReadAheadBytes = 2 << 20
	DefaultRecordInterval = 5 * time.Second
	DefaultHelloTimeout   = 10 * time.Second
	DefaultAckTimeout     = 30 * time.Second
	DefaultRetryMin       = 100 * time.Millisecond
	DefaultRetryMax       = 5 * time.Second
	DefaultRefusedRetry   = 10 * time.Second
	DefaultSkipDecrees    = 4096
	DefaultSkipBytes      = 4 << 20
)

// maxBatchBytes keeps a batch, with one mutation of the largest size beyond its limit, within what a partition accepts as one duplicated
// mutation.
const maxBatchBytes = replica.GatherBytes

// Partition is what a Source needs of one partition of this node.
type Partition interface {
	ID() uint32
	// Applied is the highest decree whose effect can be read here.
	Applied() uint64
	// Leader says which node leads the partition, and whether it is this one; only the leader ships.
	Leader() (id uint64, isSelf bool)
	Log() *plog.Log
	// Subscribe makes the partition report what it applies from now on. After cancel has returned there are no more calls.
	Subscribe(s replica.Subscriber) (cancel func())
	// Baseline is what the partition's data rests on beside the mutations that are shipped.
	Baseline() (replica.Baseline, error)
	// RecordConfirmed remembers, replicated, what a remote has; Confirmed returns what was last remembered.
	RecordConfirmed(remote string, decree uint64) error
	Confirmed(remote string) (decree uint64, ok bool)
}

// Network opens duplication streams to other nodes; a *peer.Client is one.
type Network interface {
	Duplicate(ctx context.Context, address string) (peer.DuplicateClientStream, error)
}

// Jobs runs the reading of logs on the long pool; a *tasks.Runner is one.
type Jobs interface {
	Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error)
}

// Remote is another cluster that this one is duplicated to.
type Remote struct {
	// Name identifies the remote in progress records, metrics and commands: 1 to 64 letters, digits, '-', '_' or '.'.
	Name string
	// Addresses are the peers' host:port; at least one. They are tried in turn.
	Addresses []string
	// FailMode is FailSlow by default.
	FailMode FailMode
}

// Options configures a Source.
type Options struct {
	// ClusterID is this cluster's id; only mutations made in it are shipped. Must not be 0.
	ClusterID uint64
	// Partitions are this node's partitions.
	Partitions []Partition
	// PartitionCount is how many partitions the cluster has. Default len(Partitions).
	PartitionCount uint32
	// Remotes are where to ship to; none is fine. Names must differ.
	Remotes []Remote
	// Paused names remotes that were paused before and still are. SavePaused, if not nil, is given their names before one is
	// paused or resumed, and must keep them for the next start; when it fails, nothing is paused or resumed.
	Paused     []string
	SavePaused func(remotes []string) error
	// Network and Jobs are required when there are remotes.
	Network Network
	Jobs    Jobs
	// TailBytes bounds one partition's in-memory tail. Default 4 MiB; negative means no tail, so that everything is read from
	// the log.
	TailBytes int
	// MaxTailBytes bounds the tails of all partitions together: each gets at most its equal share. Default 64 MiB.
	MaxTailBytes int
	// BatchBytes is how many bytes of decrees, 64 more counted for each, make a full batch, and what a job reads before it hands
	// over; a batch exceeds it by at most one mutation. Default 1 MiB, 1 KiB to 16 MiB.
	BatchBytes int
	// WindowBytes and WindowBatches bound what one pipeline has sent and the remote has not confirmed; a single batch is always
	// allowed. Defaults 8 MiB and 8.
	WindowBytes   int
	WindowBatches int
	// ReadAheadBytes bounds what one pipeline has read from the log and not sent; a batch exceeds it by at most BatchBytes.
	// Default 2 MiB.
	ReadAheadBytes int
	// RecordInterval is how often, at most, a remote's progress is recorded in the partition. Default 5 s.
	RecordInterval time.Duration
	// HelloTimeout bounds the wait for a remote's first answer, AckTimeout the wait for progress while something is unconfirmed.
	// Defaults 10 s and 30 s.
	HelloTimeout time.Duration
	AckTimeout   time.Duration
	// RetryMin and RetryMax bound the backoff: the n-th wait is random between 0 and min(RetryMax, RetryMin·2^n). Defaults 100 ms
	// and 5 s.
	RetryMin time.Duration
	RetryMax time.Duration
	// RefusedRetry is how long, at most, a pipeline waits after a refusal that will not go away by itself; the wait is random
	// between half of it and all. Default 10 s.
	RefusedRetry time.Duration
	// SkipDecrees and SkipBytes say how much that is not to be shipped may follow the last shipped mutation before the remote is
	// told to pass over it. Defaults 4096 and 4 MiB.
	SkipDecrees uint64
	SkipBytes   int
	// Logger receives one line per event; nil discards.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means they are not registered.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	o.PartitionCount = cmp.Or(o.PartitionCount, uint32(len(o.Partitions)))
	o.TailBytes = cmp.Or(o.TailBytes, DefaultTailBytes)
	o.MaxTailBytes = cmp.Or(o.MaxTailBytes, DefaultMaxTailBytes)
	o.BatchBytes = cmp.Or(o.BatchBytes, DefaultBatchBytes)
	o.WindowBytes = cmp.Or(o.WindowBytes, DefaultWindowBytes)
	o.WindowBatches = cmp.Or(o.WindowBatches, DefaultWindowBatches)
	o.ReadAheadBytes = cmp.Or(o.ReadAheadBytes, DefaultReadAheadBytes)
	o.RecordInterval = cmp.Or(o.RecordInterval, DefaultRecordInterval)
	o.HelloTimeout = cmp.Or(o.HelloTimeout, DefaultHelloTimeout)
	o.AckTimeout = cmp.Or(o.AckTimeout, DefaultAckTimeout)
	o.RetryMin = cmp.Or(o.RetryMin, DefaultRetryMin)
	o.RetryMax = cmp.Or(o.RetryMax, DefaultRetryMax)
	o.RefusedRetry = cmp.Or(o.RefusedRetry, DefaultRefusedRetry)
	o.SkipDecrees = cmp.Or(o.SkipDecrees, DefaultSkipDecrees)
	o.SkipBytes = cmp.Or(o.SkipBytes, DefaultSkipBytes)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports the first field that cannot be used, by name.
func (o *Options) Validate() error {
	if o.ClusterID == 0 {
		return errors.New("duplication: Options.ClusterID is missing")
	}
	if len(o.Remotes) > 0 && (o.Network == nil || o.Jobs == nil) {
		return errors.New("duplication: Options.Network and Options.Jobs are required with remotes")
	}
	if o.BatchBytes < 1<<10 || o.BatchBytes > maxBatchBytes {
		return fmt.Errorf("duplication: Options.BatchBytes is %d, must be 1024 to %d", o.BatchBytes, maxBatchBytes)
	}
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"MaxTailBytes", int64(o.MaxTailBytes)}, {"WindowBytes", int64(o.WindowBytes)}, {"WindowBatches", int64(o.WindowBatches)},
		{"ReadAheadBytes", int64(o.ReadAheadBytes)}, {"RecordInterval", int64(o.RecordInterval)}, {"HelloTimeout", int64(o.HelloTimeout)},
		{"AckTimeout", int64(o.AckTimeout)}, {"RetryMin", int64(o.RetryMin)}, {"RetryMax", int64(o.RetryMax - o.RetryMin + 1)},
		{"RefusedRetry", int64(o.RefusedRetry)}, {"SkipBytes", int64(o.SkipBytes)},
	} {
		if field.value <= 0 {
			return fmt.Errorf("duplication: Options.%s is out of range", field.name)
		}
	}
	return o.validateNames()
}

func (o *Options) validateNames() error {
	remotes := make(map[string]bool)
	for _, r := range o.Remotes {
		if err := r.validate(); err != nil {
			return err
		}
		if remotes[r.Name] {
			return fmt.Errorf("duplication: remote %q is named twice", r.Name)
		}
		remotes[r.Name] = true
	}
	partitions := make(map[uint32]bool)
	for _, p := range o.Partitions {
		if id := p.ID(); id >= o.PartitionCount || partitions[id] {
			return fmt.Errorf("duplication: partition %d is out of range or given twice", id)
		}
		partitions[p.ID()] = true
	}
	return nil
}

func (r *Remote) validate() error {
	if r.Name == "" || len(r.Name) > 64 {
		return fmt.Errorf("duplication: remote name %q must have 1 to 64 characters", r.Name)
	}
	for _, c := range r.Name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("duplication: remote name %q may have letters, digits, '-', '_' and '.' only", r.Name)
		}
	}
	if len(r.Addresses) == 0 {
		return fmt.Errorf("duplication: remote %q has no address", r.Name)
	}
	for _, address := range r.Addresses {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("duplication: remote %q: address %q is not host:port", r.Name, address)
		}
	}
	if r.FailMode > FailSkip {
		return fmt.Errorf("duplication: remote %q: unknown fail mode %d", r.Name, r.FailMode)
	}
	return nil
}

// tailLimit is what one partition's tail may hold.
func (o *Options) tailLimit() int {
	if o.TailBytes < 0 || len(o.Partitions) == 0 {
		return 0
	}
	return min(o.TailBytes, o.MaxTailBytes/len(o.Partitions))
}

// backoff is exponential with full jitter: a randomization factor of 1 draws from 0 to twice the interval.
func (o *Options) backoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = max(o.RetryMin/2, 1)
	b.MaxInterval = max(o.RetryMax/2, 1)
	b.Multiplier = 2
	b.RandomizationFactor = 1
	return b
}
