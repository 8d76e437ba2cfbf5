package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// ErrUnknownPartition is returned for a partition the service has no source for.
var ErrUnknownPartition = errors.New("the partition does not exist or is not open")

// ErrStopped is returned by a service that is not running.
var ErrStopped = errors.New("checkpoint service is not running")

// ErrOtherCluster is returned for a store with another cluster's checkpoints,
// which this one's would be mixed up with.
var ErrOtherCluster = errors.New("the store is another cluster's; give this one a folder or prefix of its own")

// ErrOtherLife keeps what there is of a partition that was put back to an earlier state
// or life: the newest checkpoint in the store is of another one, until a new one is made.
var ErrOtherLife = errors.New("the newest checkpoint is of another life of the partition; nothing is removed before there is a new one")

// Runner runs tasks on the long pool; *tasks.Runner satisfies it.
type Runner interface {
	Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error)
	Every(code tasks.Code, key string, f threadpool.Func) (*tasks.Periodic, error)
}

// ServiceOptions are the options of a Service.
type ServiceOptions struct {
	// Store keeps the checkpoints. Required.
	Store *Store
	// Sources are the partitions, each at most once.
	Sources []Source
	// Runner runs code checkpoint, whose spec gives the period, the retries and how
	// many run at once. Required.
	Runner Runner
	// Create is the template for each copy; its Progress and Parent are not used: a
	// copy builds only on one that this service made. What happened to a partition
	// before the process began, nobody knows.
	Create CreateOptions
	// Limit bounds the copies made at once, by the node's resources.
	Limit LimitOptions
	// Pace bounds what copies take of the processors while clients are served; nil: they
	// are as fast as they can be.
	Pace *Pace
	// Renew makes a checkpoint without waiting for the period: soon after Start of each
	// partition whose newest one is of another life of it, and when the store answers again
	// of each whose newest attempt failed.
	Renew bool
	// Retention is applied to a partition after each new checkpoint of it.
	Retention Retention
	// Missing, if set, says why a partition has no source; nil when it does not know.
	Missing func(partition uint32) error
	// Refuse, if set, says why a partition can't be read now, such as a disk that hangs; its
	// copy then fails at once, and is tried again as any other. It must not block.
	Refuse func(partition uint32) error
	// Created, if set, is told of each finished checkpoint. It must not block.
	Created func(*Manifest)
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills in the defaults.
func (o *ServiceOptions) EnsureDefaults() {
	o.Create.EnsureDefaults()
	o.Retention.EnsureDefaults()
	o.Limit.EnsureDefaults()
	if o.Pace == nil {
		var never PaceOptions
		never.EnsureDefaults()
		o.Pace = newPace(never)
	}
	if o.Created == nil {
		o.Created = func(*Manifest) {}
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with the options.
func (o *ServiceOptions) Validate() error {
	if o.Store == nil || o.Runner == nil {
		return errors.New("checkpoint service options: Store and Runner are required")
	}
	seen := make(map[uint32]bool)
	for _, src := range o.Sources {
		if seen[src.ID()] {
			return fmt.Errorf("checkpoint service options: partition %d is there twice", src.ID())
		}
		seen[src.ID()] = true
	}
	return errors.Join(o.Create.Validate(), o.Retention.Validate(), o.Limit.Validate())
}

// Service makes checkpoints of a node's partitions, periodically and on demand.
// All of a partition's runs have the partition as their key, so they never overlap.
type Service struct {
	o       ServiceOptions
	metrics *metrics
	limit   *limit
	parts   map[uint32]*partitionState
	order   []*partitionState

	// mu guards what follows and the partitions' states. Nothing is called with it held.
	mu      sync.Mutex
	ctx     context.Context // nil before Start and after Stop
	cancel  context.CancelFunc
	every   []*tasks.Periodic
	pending sync.WaitGroup // on-demand jobs and the run over the whole node
	node    *NodeRun       // the newest one; nil before the first
	// nodeState has no Running: NodeStatus asks node.
	nodeState NodeStatus
	// nodesLooked tells whether the node's checkpoints in the store were looked at.
	nodesLooked bool
}

// partitionState is one source with what happened to it.
type partitionState struct {
	src   Source
	every *tasks.Periodic
	state PartitionStatus
	run   *Progress // nil while nothing runs
	begun time.Time
	// fullRaw and changedRaw are the raw bytes of the newest full and incremental copy.
	fullRaw, changedRaw uint64
	// looked tells whether what is in the store was looked at.
	looked bool
	// made is the newest checkpoint that this service made; nil before the first.
	made *Manifest
	// before is the time of the mark of the newest one when it was looked at, which the
	// first one made must not be before.
	before uint64
}

// NewService checks the options.
func NewService(o ServiceOptions) (*Service, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Service{o: o, limit: newLimit(o.Limit), parts: make(map[uint32]*partitionState)}
	for _, src := range o.Sources {
		p := &partitionState{src: src, state: PartitionStatus{Partition: src.ID()}}
		s.parts[src.ID()] = p
		s.order = append(s.order, p)
	}
	s.metrics = newMetrics(s, o.Registerer)
	return s, nil
}

// Store is where the checkpoints are.
func (s *Service) Store() *Store { return s.o.Store }

// Start looks at what the store holds, and begins the periodic runs and the
// removal of what an interrupted run left. A store that does not answer within seconds is
// looked at later; one with another cluster's checkpoints is ErrOtherCluster.
func (s *Service) Start(ctx context.Context) error {
	if err := s.lookAtAll(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	if s.ctx != nil {
		s.mu.Unlock()
		return errors.New("checkpoint service is already running")
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	running := s.ctx
	s.mu.Unlock()
	s.pending.Go(func() { s.watchStore(running) })
	for _, p := range s.order {
		every, err := s.o.Runner.Every(tasks.Checkpoint, key(p.src.ID()), s.task(p, false, nil))
		if err != nil {
			return errors.Join(fmt.Errorf("schedule checkpoints of partition %d: %w", p.src.ID(), err), s.Stop(context.Background()))
		}
		s.mu.Lock()
		p.every = every
		s.every = append(s.every, every)
		s.mu.Unlock()
		s.tidy(p)
	}
	return nil
}

// Stop ends what runs and waits for it, at most until ctx ends.
func (s *Service) Stop(ctx context.Context) error {
	s.mu.Lock()
	if s.ctx == nil {
		s.mu.Unlock()
		return nil
	}
	s.cancel()
	every := s.every
	s.ctx, s.every = nil, nil
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range every {
			p.Stop()
		}
		s.pending.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop checkpoint service: %w", context.Cause(ctx))
	}
}

func key(partition uint32) string { return strconv.FormatUint(uint64(partition), 10) }

// unknown is the error for a partition without a source.
func (s *Service) unknown(partition uint32) error {
	if s.o.Missing != nil {
		if reason := s.o.Missing(partition); reason != nil {
			return fmt.Errorf("%w: %w", ErrUnknownPartition, reason)
		}
	}
	return ErrUnknownPartition
}

// CreateNow begins a checkpoint of one partition, a full one on request. The
// job ends when the checkpoint and the pruning after it are done, or failed for good.
func (s *Service) CreateNow(partition uint32, full bool) (*tasks.Job, error) {
	p := s.parts[partition]
	if p == nil {
		return nil, fmt.Errorf("partition %d: %w", partition, s.unknown(partition))
	}
	return s.submit(p, s.task(p, full, nil))
}

// submit runs a task of p on demand.
func (s *Service) submit(p *partitionState, task threadpool.Func) (*tasks.Job, error) {
	s.mu.Lock()
	ctx := s.ctx
	if ctx != nil {
		s.pending.Add(1)
		p.state.Queued++
	}
	s.mu.Unlock()
	if ctx == nil {
		return nil, ErrStopped
	}
	job, err := s.o.Runner.Submit(ctx, tasks.Checkpoint, key(p.src.ID()), task)
	if err != nil {
		s.forget(p)
		return nil, fmt.Errorf("checkpoint partition %d: %w", p.src.ID(), err)
	}
	go func() {
		<-job.Done()
		s.forget(p)
	}()
	return job, nil
}

func (s *Service) forget(p *partitionState) {
	s.mu.Lock()
	p.state.Queued--
	s.mu.Unlock()
	s.pending.Done()
}

// Trigger asks for the periodic run of a partition to happen now.
func (s *Service) Trigger(partition uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.parts[partition]; p != nil && p.every != nil && s.ctx != nil {
		p.every.Trigger()
	}
}

// task is one run for p: copy, then prune; with made, tell it instead of pruning.
func (s *Service) task(p *partitionState, full bool, made func(*Manifest)) threadpool.Func {
	return func(ctx context.Context, slot *threadpool.Turn) error {
		m, err := s.copy(ctx, slot, p, full)
		if errors.Is(err, ErrNothingApplied) {
			return nil // nothing to copy is no failure, and made hears of no copy
		}
		if err != nil {
			return err
		}
		if made != nil {
			made(m)
		}
		s.o.Created(m)
		if made != nil {
			return nil
		}
		return s.prune(ctx, slot, p)
	}
}

// copy makes a checkpoint of p when the limit allows it.
func (s *Service) copy(ctx context.Context, slot *threadpool.Turn, p *partitionState, full bool) (*Manifest, error) {
	if s.o.Refuse != nil {
		if err := s.o.Refuse(p.src.ID()); err != nil {
			s.begin(p)
			s.end(p, nil, err)
			return nil, err
		}
	}
	if err := s.limit.enter(slot); err != nil {
		return nil, err
	}
	defer s.limit.leave()
	turn := s.limit.watch(s.o.Pace.Turn(slot, nil))
	o := s.o.Create
	o.Incremental, o.Full = o.Incremental && !full, full
	o.Progress = s.begin(p)
	m, err := s.create(ctx, turn, p, o)
	s.end(p, m, err)
	return m, err
}

func (s *Service) create(ctx context.Context, turn Turn, p *partitionState, o CreateOptions) (*Manifest, error) {
	if err := s.look(ctx, turn, p); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if o.Parent = p.made; o.Parent == nil {
		o.After = p.before
	}
	s.mu.Unlock()
	o.Incremental = o.Incremental && o.Parent != nil
	begun := s.o.Create.Now()
	m, err := s.o.Store.Create(ctx, turn, p.src, o)
	if err == nil && !m.Created.Before(begun) { // not one that was there already
		s.mu.Lock()
		p.made = m
		s.mu.Unlock()
	}
	return m, err
}

// prune applies the retention to p. A failure is no failure of the checkpoint
// that was just made, which is not made again for it.
func (s *Service) prune(ctx context.Context, turn Turn, p *partitionState) error {
	if _, err := s.pruneBy(ctx, turn, p, s.o.Retention); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		s.o.Logger.Warn("old checkpoints not removed", "partition", p.src.ID(), "error", err)
	}
	return nil
}

func (s *Service) pruneBy(ctx context.Context, turn Turn, p *partitionState, r Retention) ([]uint64, error) {
	id := p.src.ID()
	if err := s.look(ctx, turn, p); err != nil {
		return nil, err
	}
	s.mu.Lock()
	run, made, before := s.node, p.made, p.before
	s.mu.Unlock()
	if made == nil {
		if err := onOwn(turn, func(Turn) error {
			behind, err := isBehind(p.src, before)
			if behind {
				err = fmt.Errorf("partition %d: %w", id, ErrOtherLife)
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	keep := run.pinned(id)
	if made != nil {
		// It is the newest of this partition, even if an earlier life of it reached greater decrees.
		keep = append(keep, made.Decree)
	}
	removed, err := s.o.Store.Prune(ctx, turn, id, r, s.o.Create.Now(), keep...)
	s.metrics.pruned.Add(float64(len(removed)))
	if err != nil && ctx.Err() == nil {
		s.metrics.pruneFailures.Inc()
		s.mu.Lock()
		p.state.LastError = fmt.Sprintf("old checkpoints not removed: %v", err)
		s.mu.Unlock()
	}
	return removed, err
}

func (s *Service) begin(p *partitionState) *Progress {
	progress := &Progress{}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.run, p.begun = progress, s.o.Create.Now()
	return progress
}

// expected is about how many raw bytes the running copy will have, 0 = unknown: as many as the newest one of its kind, or else what
// the source says. The service's mu is held.
func (p *partitionState) expected() uint64 {
	if p.run.Parent.Load() > 0 {
		return cmp.Or(p.changedRaw, p.run.Expected.Load())
	}
	return cmp.Or(p.fullRaw, p.run.Expected.Load())
}

// learn notes how much there is to copy.
func (p *partitionState) learn(m *Manifest) {
	if m.Full() {
		p.fullRaw = m.RawBytes
	} else {
		p.changedRaw = m.RawBytes
	}
}

func (s *Service) end(p *partitionState, m *Manifest, err error) {
	s.mu.Lock()
	took := s.o.Create.Now().Sub(p.begun)
	wrote := p.run.Bytes.Load()
	p.run = nil
	id := p.src.ID()
	switch {
	case errors.Is(err, ErrNothingApplied):
	case err != nil:
		p.state.Failures++
		p.state.LastError = err.Error()
	default:
		p.state.LastError = ""
		p.state.Last = summary(m)
		p.state.Last.Seconds = took.Seconds()
		p.learn(m)
	}
	s.mu.Unlock()
	s.metrics.bytes.Add(float64(wrote))
	switch {
	case errors.Is(err, ErrNothingApplied):
	case err != nil:
		s.metrics.failures.Inc()
		s.o.Logger.Warn("checkpoint failed", "partition", id, "error", err)
	default:
		s.metrics.duration.Observe(took.Seconds())
		s.metrics.done.Inc()
		s.o.Logger.Info("checkpoint done", "partition", id, "decree", m.Decree, "parent", m.Parent,
			"entries", m.Entries, "bytes", m.Bytes, "took", took)
	}
}
