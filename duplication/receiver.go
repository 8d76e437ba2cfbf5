package duplication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"replicanode/peer"
	"replicanode/peer/peerpb"
	"replicanode/replica/mutation"
)

// Defaults of ReceiverOptions.
const (
	DefaultMaxReceivedBatchBytes = 64 << 20
	DefaultMaxApplyingBytes      = 128 << 20
	DefaultMaxApplyingBatches    = 16
	DefaultMaxReceiverStreams    = 4096
)

// Target is what a Receiver needs of one partition of this node.
type Target interface {
	// Leader says which node leads the partition, and whether it is this one; only the leader receives.
	Leader() (id uint64, isSelf bool)
	// Applied is the highest decree whose effect can be read here.
	Applied() uint64
	// ApplyDuplicated proposes a batch. Calls take effect in their order. done is called once, with the source decree up to which
	// everything is durable here, or with why the batch was not applied; it does not block.
	ApplyDuplicated(ctx context.Context, b mutation.Batch, done func(confirmed uint64, err error))
	// DuplicationProgress is the decree of a source's partition up to which everything is durable here.
	DuplicationProgress(cluster uint64, partition uint32) (uint64, error)
}

// ReceiverOptions configures a Receiver.
type ReceiverOptions struct {
	// ClusterID is this cluster's id. Must not be 0.
	ClusterID uint64
	// PartitionCount is how many partitions this cluster has. Must not be 0.
	PartitionCount uint32
	// Target returns a partition, nil when it is not of this node; required.
	Target func(partition uint32) Target
	// LeaderAddress is the peers' host:port of a node of this cluster, empty when not known. nil: never known.
	LeaderAddress func(node uint64) string
	// MaxBatchBytes bounds one batch, unpacked; it should be the MaxDuplicatedBytes of the partitions, and what peers may send with
	// peer.MessageOverhead added. Default 64 MiB.
	MaxBatchBytes int
	// MaxApplyingBytes bounds the unpacked batches of all streams that are being applied. Default 128 MiB.
	MaxApplyingBytes int64
	// MaxApplyingBatches bounds the batches of one stream that are being applied. Default 16.
	MaxApplyingBatches int64
	// MaxStreams bounds open streams. Default 4096.
	MaxStreams int
	// HelloTimeout bounds the wait for a source's greeting. Default 10 s.
	HelloTimeout time.Duration
	// Logger receives one line per event; nil discards.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means they are not registered.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills the fields that are zero.
func (o *ReceiverOptions) EnsureDefaults() {
	o.MaxBatchBytes = cmp.Or(o.MaxBatchBytes, DefaultMaxReceivedBatchBytes)
	o.MaxApplyingBytes = cmp.Or(o.MaxApplyingBytes, DefaultMaxApplyingBytes)
	o.MaxApplyingBatches = cmp.Or(o.MaxApplyingBatches, DefaultMaxApplyingBatches)
	o.MaxStreams = cmp.Or(o.MaxStreams, DefaultMaxReceiverStreams)
	o.HelloTimeout = cmp.Or(o.HelloTimeout, DefaultHelloTimeout)
	if o.LeaderAddress == nil {
		o.LeaderAddress = func(uint64) string { return "" }
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports the first field that cannot be used, by name.
func (o *ReceiverOptions) Validate() error {
	switch {
	case o.ClusterID == 0:
		return errors.New("duplication: ReceiverOptions.ClusterID is missing")
	case o.PartitionCount == 0:
		return errors.New("duplication: ReceiverOptions.PartitionCount is missing")
	case o.Target == nil:
		return errors.New("duplication: ReceiverOptions.Target is missing")
	case o.MaxBatchBytes < 1 || o.MaxApplyingBytes < 1 || o.MaxApplyingBatches < 1 || o.MaxStreams < 1 || o.HelloTimeout < 1:
		return errors.New("duplication: a limit of ReceiverOptions is negative")
	}
	return nil
}

// Receiver applies what other clusters ship to here. It is a peer.DuplicationHandler. It runs from NewReceiver on; Stop ends it.
type Receiver struct {
	o       ReceiverOptions
	metrics *receiverMetrics
	budget  *semaphore.Weighted // bytes of batches being applied
	ctx     context.Context
	cancel  context.CancelCauseFunc
	// work counts streams, their receiving goroutines, and batches being applied.
	work sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	streams int
	// current is the newest stream of each source's partition.
	current map[origin]*inbound
}

// origin is one partition of a source.
type origin struct {
	cluster   uint64
	partition uint32
}

var errReceiverStopped = errors.New("the remote node is stopping")

// NewReceiver checks the options.
func NewReceiver(o ReceiverOptions) (*Receiver, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	metrics, err := newReceiverMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	r := &Receiver{o: o, metrics: metrics, budget: semaphore.NewWeighted(o.MaxApplyingBytes), current: make(map[origin]*inbound)}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r, nil
}

// Stop ends all streams, takes no new ones, and waits until nothing is being applied or ctx ends. It may be called again.
func (r *Receiver) Stop(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.cancel(errReceiverStopped)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.work.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop duplication receiver: %w", ctx.Err())
	}
}

// Duplicate implements peer.DuplicationHandler.
func (r *Receiver) Duplicate(stream peer.DuplicateStream) error {
	if refused := r.enter(); refused != nil {
		r.metrics.refused(refused.reason)
		return stream.Send(refused.response())
	}
	defer r.leave()
	in := newInbound(r, stream)
	r.work.Add(1)
	go in.receive()
	return in.serve()
}

func (r *Receiver) enter() *refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE, "%v", errReceiverStopped)
	}
	if r.streams >= r.o.MaxStreams {
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_BUSY, "the remote has %d streams open", r.streams)
	}
	r.streams++
	r.work.Add(1)
	r.metrics.streams.Set(float64(r.streams))
	return nil
}

func (r *Receiver) leave() {
	r.mu.Lock()
	r.streams--
	r.metrics.streams.Set(float64(r.streams))
	r.mu.Unlock()
	r.work.Done()
}

// admit checks a greeting; it returns what is durable here, or why the stream is refused.
func (r *Receiver) admit(hello *peerpb.Hello) (Target, uint64, *refusal) {
	switch {
	case hello.GetClusterId() == 0:
		return nil, 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "no cluster id")
	case hello.GetClusterId() == r.o.ClusterID:
		return nil, 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_SAME_CLUSTER, "source and remote are both cluster %d", r.o.ClusterID)
	case hello.GetPartitions() != r.o.PartitionCount:
		return nil, 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_PARTITIONS_DIFFER, "the source has %d, the remote %d", hello.GetPartitions(), r.o.PartitionCount)
	case hello.GetPartition() >= r.o.PartitionCount:
		return nil, 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "partition %d of %d", hello.GetPartition(), r.o.PartitionCount)
	}
	target := r.o.Target(hello.GetPartition())
	if target == nil {
		return nil, 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_NOT_LEADER, "partition %d is not on the remote node", hello.GetPartition())
	}
	if leader, isSelf := target.Leader(); !isSelf {
		return nil, 0, r.notLeader(leader)
	}
	progress, err := target.DuplicationProgress(hello.GetClusterId(), hello.GetPartition())
	if err != nil {
		return nil, 0, r.explain(err)
	}
	if progress == 0 {
		var refused *refusal
		if progress, refused = r.meet(target, hello); refused != nil {
			return nil, 0, refused
		}
	}
	return target, progress, nil
}

// install makes in the current stream of its origin and ends the one before it.
func (r *Receiver) install(in *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.current[in.origin]; old != nil {
		close(old.superseded)
	}
	r.current[in.origin] = in
}

func (r *Receiver) uninstall(in *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current[in.origin] == in {
		delete(r.current, in.origin)
	}
}
