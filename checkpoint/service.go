package checkpoint

import (
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
var ErrUnknownPartition = errors.New("unknown partition")

// ErrStopped is returned by a service that is not running.
var ErrStopped = errors.New("checkpoint service is not running")

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
	// Create is the template for each copy; its Progress is not used.
	Create CreateOptions
	// Limit bounds the copies made at once, by the node's resources.
	Limit LimitOptions
	// Retention is applied to a partition after each new checkpoint of it.
	Retention Retention
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
	if o.Created == nil {
		o.Created = func(*Manifest) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
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
	parts   map[uint32]*partition
	order   []*partition

	// mu guards what follows and the partitions' states. Nothing is called with it held.
	mu      sync.Mutex
	ctx     context.Context // nil before Start and after Stop
	cancel  context.CancelFunc
	every   []*tasks.Periodic
	pending sync.WaitGroup // on-demand jobs
}

// partition is one source with what happened to it.
type partition struct {
	src   Source
	every *tasks.Periodic
	state PartitionStatus
	run   *Progress // nil while nothing runs
	begun time.Time
}

// NewService checks the options.
func NewService(o ServiceOptions) (*Service, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Service{o: o, limit: newLimit(o.Limit), parts: make(map[uint32]*partition)}
	for _, src := range o.Sources {
		p := &partition{src: src, state: PartitionStatus{Partition: src.ID()}}
		s.parts[src.ID()] = p
		s.order = append(s.order, p)
	}
	s.metrics = newMetrics(s, o.Registerer)
	return s, nil
}

// Store is where the checkpoints are.
func (s *Service) Store() *Store { return s.o.Store }

// Start removes what an interrupted run left, looks at what the store holds, and
// begins the periodic runs.
func (s *Service) Start(ctx context.Context) error {
	for _, p := range s.order {
		if err := s.o.Store.Clean(ctx, nil, p.src.ID()); err != nil {
			return fmt.Errorf("clean the checkpoints of partition %d: %w", p.src.ID(), err)
		}
		last, err := s.o.Store.Latest(p.src.ID())
		switch {
		case err == nil:
			s.mu.Lock()
			p.state.Last = summary(last)
			s.mu.Unlock()
		case !errors.Is(err, ErrNotFound):
			return fmt.Errorf("look at the checkpoints of partition %d: %w", p.src.ID(), err)
		}
	}
	s.mu.Lock()
	if s.ctx != nil {
		s.mu.Unlock()
		return errors.New("checkpoint service is already running")
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.Unlock()
	for _, p := range s.order {
		every, err := s.o.Runner.Every(tasks.Checkpoint, key(p.src.ID()), s.task(p, false))
		if err != nil {
			return errors.Join(fmt.Errorf("schedule checkpoints of partition %d: %w", p.src.ID(), err), s.Stop(context.Background()))
		}
		s.mu.Lock()
		p.every = every
		s.every = append(s.every, every)
		s.mu.Unlock()
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

// CreateNow begins a checkpoint of one partition, a full one on request. The
// job ends when the checkpoint and the pruning after it are done, or failed for good.
func (s *Service) CreateNow(partition uint32, full bool) (*tasks.Job, error) {
	p := s.parts[partition]
	if p == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownPartition, partition)
	}
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
	job, err := s.o.Runner.Submit(ctx, tasks.Checkpoint, key(partition), s.task(p, full))
	if err != nil {
		s.forget(p)
		return nil, fmt.Errorf("checkpoint partition %d: %w", partition, err)
	}
	go func() {
		<-job.Done()
		s.forget(p)
	}()
	return job, nil
}

func (s *Service) forget(p *partition) {
	s.mu.Lock()
	p.state.Queued--
	s.mu.Unlock()
	s.pending.Done()
}

// Outcome is the result of one partition's part of CreateAll.
type Outcome struct {
	Partition uint32    `json:"partition"`
	Manifest  *Manifest `json:"manifest,omitempty"` // the newest checkpoint after the run
	Err       error     `json:"-"`
	Problem   string    `json:"problem,omitempty"` // Err as text
}

// CreateAll makes a checkpoint of every partition, as many at once as the
// code's spec allows, and waits for all of them. One partition's failure does not
// stop the others; the error joins them.
func (s *Service) CreateAll(ctx context.Context, full bool) ([]Outcome, error) {
	outcomes := make([]Outcome, len(s.order))
	jobs := make([]*tasks.Job, len(s.order))
	for i, p := range s.order {
		outcomes[i].Partition = p.src.ID()
		jobs[i], outcomes[i].Err = s.CreateNow(p.src.ID(), full)
	}
	var errs []error
	for i, job := range jobs {
		o := &outcomes[i]
		if job != nil {
			select {
			case <-job.Done():
				o.Err = job.Err()
			case <-ctx.Done():
				job.Cancel()
				<-job.Done()
				o.Err = errors.Join(context.Cause(ctx), job.Err())
			}
		}
		if o.Err == nil {
			o.Manifest, o.Err = s.o.Store.Latest(o.Partition)
		}
		if o.Err != nil {
			o.Problem = o.Err.Error()
			errs = append(errs, fmt.Errorf("partition %d: %w", o.Partition, o.Err))
		}
	}
	return outcomes, errors.Join(errs...)
}

// Trigger asks for the periodic run of a partition to happen now.
func (s *Service) Trigger(partition uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.parts[partition]; p != nil && p.every != nil && s.ctx != nil {
		p.every.Trigger()
	}
}

// task is one run for p: copy, then prune.
func (s *Service) task(p *partition, full bool) threadpool.Func {
	return func(ctx context.Context, slot *threadpool.Turn) error {
		if err := s.limit.enter(slot); err != nil {
			return err
		}
		defer s.limit.leave()
		turn := &watchedTurn{Turn: slot, limit: s.limit}
		o := s.o.Create
		o.Incremental = o.Incremental && !full
		o.Progress = s.begin(p)
		m, err := s.o.Store.Create(ctx, turn, p.src, o)
		s.end(p, m, err)
		if errors.Is(err, ErrNothingApplied) {
			return nil
		}
		if err != nil {
			return err
		}
		s.o.Created(m)
		removed, err := s.o.Store.Prune(ctx, turn, p.src.ID(), s.o.Retention, o.Now())
		s.metrics.pruned.Add(float64(len(removed)))
		if err != nil {
			return fmt.Errorf("prune checkpoints of partition %d: %w", p.src.ID(), err)
		}
		return nil
	}
}

func (s *Service) begin(p *partition) *Progress {
	progress := &Progress{}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.run, p.begun = progress, s.o.Create.Now()
	return progress
}

func (s *Service) end(p *partition, m *Manifest, err error) {
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
