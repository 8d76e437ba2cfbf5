package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// PruneRun is one removal that was asked for.
type PruneRun struct {
	done chan struct{}
	err  error // set before done is closed

	// mu guards pruned. Nothing is called with it held.
	mu     sync.Mutex
	pruned Pruned
}

// Done is closed when the run has ended.
func (r *PruneRun) Done() <-chan struct{} { return r.done }

// Err joins what failed; nil until Done is closed and after a success.
func (r *PruneRun) Err() error {
	select {
	case <-r.done:
		return r.err
	default:
		return nil
	}
}

// Pruned is what has been removed so far.
func (r *PruneRun) Pruned() Pruned {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Pruned{slices.Clone(r.pruned.Nodes), slices.Clone(r.pruned.Checkpoints)}
}

func (r *PruneRun) add(partition uint32, decrees []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pruned.Add(partition, decrees)
}

// Prune begins to remove the checkpoints of one partition that r lets go, or
// (nil) those of all partitions and of the whole node. It takes turns with the
// making of checkpoints, partition by partition.
func (s *Service) Prune(partition *uint32, r Retention) (*PruneRun, error) {
	parts := s.order
	if partition != nil {
		p := s.parts[*partition]
		if p == nil {
			return nil, fmt.Errorf("partition %d: %w", *partition, s.unknown(*partition))
		}
		parts = []*partitionState{p}
	}
	s.mu.Lock()
	if s.ctx == nil {
		s.mu.Unlock()
		return nil, ErrStopped
	}
	s.pending.Add(1)
	ctx := s.ctx
	s.mu.Unlock()
	run := &PruneRun{done: make(chan struct{})}
	go func() {
		defer s.pending.Done()
		defer close(run.done)
		run.err = s.runPrune(ctx, run, parts, r, partition == nil)
	}()
	return run, nil
}

func (s *Service) runPrune(ctx context.Context, run *PruneRun, parts []*partitionState, r Retention, nodes bool) error {
	var errs []error
	if nodes {
		names, err := s.pruneNodes(ctx, r)
		run.mu.Lock()
		run.pruned.Nodes = names
		run.mu.Unlock()
		if err != nil {
			s.metrics.pruneFailures.Inc()
			errs = append(errs, err)
		}
	}
	jobs := make([]*tasks.Job, len(parts))
	for i, p := range parts {
		var err error
		jobs[i], err = s.submit(p, func(ctx context.Context, turn *threadpool.Turn) error {
			removed, err := s.pruneBy(ctx, turn, p, r)
			run.add(p.src.ID(), removed)
			return err
		})
		if err != nil {
			errs = append(errs, &PartitionError{p.src.ID(), err})
		}
	}
	for i, job := range jobs {
		if job == nil {
			continue
		}
		<-job.Done()
		if err := job.Err(); err != nil {
			errs = append(errs, &PartitionError{parts[i].src.ID(), err})
		}
	}
	return errors.Join(errs...)
}

func (s *Service) pruneNodes(ctx context.Context, r Retention) ([]string, error) {
	if err := s.lookAtNodes(ctx); err != nil {
		return nil, err
	}
	return s.o.Store.PruneNodes(ctx, r, s.o.Create.Now())
}
