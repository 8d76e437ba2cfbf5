package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"replicanode/replica"
	"replicanode/threadpool"
)

const (
	// lookFor is how long Start waits for the store to answer. A node must serve
	// while the place of its checkpoints is away: what was not seen then is looked
	// at before the partition's first run.
	lookFor = 5 * time.Second
	// looks is how many partitions Start looks at at once.
	looks = 16
)

// lookAtAll looks at every partition and at the checkpoints of the node. It fails
// when they are another cluster's, and only warns when the store does not answer.
func (s *Service) lookAtAll(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	errs := make([]error, len(s.order)+1)
	slots := make(chan struct{}, looks)
	var all sync.WaitGroup
	for i, p := range s.order {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = s.look(within, nil, p)
		})
	}
	all.Wait()
	errs[len(s.order)] = s.lookAtNodes(within)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var unseen error
	for i, err := range errs {
		if errors.Is(err, ErrOtherCluster) {
			return err
		}
		if err != nil && i < len(s.order) {
			s.mu.Lock()
			s.order[i].state.LastError = err.Error()
			s.mu.Unlock()
		}
		if unseen == nil {
			unseen = err
		}
	}
	if unseen != nil {
		s.o.Logger.Warn("the store of checkpoints does not answer as it should; it is tried again with the next one", "store", s.o.Store.Root(), "error", unseen)
	}
	return nil
}

// look learns which the newest checkpoint of a partition is, and whose they are.
// Once is enough.
func (s *Service) look(ctx context.Context, turn Turn, p *partitionState) error {
	s.mu.Lock()
	looked := p.looked
	s.mu.Unlock()
	if looked {
		return nil
	}
	id := p.src.ID()
	var last *Manifest
	err := newSlicer(ctx, turn, time.Millisecond).await(func() (err error) {
		last, err = s.o.Store.Latest(ctx, id)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("look at the checkpoints of partition %d: %w", id, err)
	}
	if last != nil {
		if err := s.ours(last.ClusterID); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.looked = true
	if last != nil {
		p.state.Last = summary(last)
		p.before = replica.MarkTime(last.Mark)
		p.learn(last)
	}
	return nil
}

// isBehind tells whether a source's state is one that was there before the time of a mark.
func isBehind(src Source, time uint64) (bool, error) {
	decree, unpin, err := src.PinApplied()
	if err != nil {
		return false, fmt.Errorf("pin partition %d: %w", src.ID(), err)
	}
	defer unpin()
	if decree == 0 {
		return false, nil
	}
	mark, err := src.Mark(decree)
	if err != nil {
		return false, fmt.Errorf("mark of decree %d of partition %d: %w", decree, src.ID(), err)
	}
	return (&Manifest{Mark: mark}).behind(time), nil
}

// renew says that the newest checkpoint of a partition is of another life of it, and asks for a new one if that is wanted.
func (s *Service) renew(p *partitionState) {
	s.mu.Lock()
	before := p.before
	s.mu.Unlock()
	behind, err := isBehind(p.src, before)
	if err != nil || !behind {
		return // a copy meets the error, too, and says it
	}
	s.o.Logger.Warn("the newest checkpoint is of another life of the partition", "partition", p.src.ID(), "renewed_now", s.o.Renew)
	if s.o.Renew {
		s.Trigger(p.src.ID())
	}
}

// tidy begins to remove what an interrupted run of a partition left, and to look whether its
// newest checkpoint is of another life. The next run would do it, too, but that may be far away.
func (s *Service) tidy(p *partitionState) {
	_, err := s.submit(p, func(ctx context.Context, turn *threadpool.Turn) error {
		if err := s.look(ctx, turn, p); err != nil {
			return err
		}
		if err := s.o.Store.Clean(ctx, turn, p.src.ID()); err != nil {
			return err
		}
		return onOwn(turn, func(Turn) error { s.renew(p); return nil })
	})
	if err != nil {
		s.o.Logger.Warn("what an interrupted checkpoint left is not removed now", "partition", p.src.ID(), "error", err)
	}
}

// lookAtNodes is look for the checkpoints of the whole node.
func (s *Service) lookAtNodes(ctx context.Context) error {
	s.mu.Lock()
	looked := s.nodesLooked
	s.mu.Unlock()
	if looked {
		return nil
	}
	if err := s.o.Store.CleanNodes(ctx); err != nil {
		return fmt.Errorf("clean the checkpoints of the node: %w", err)
	}
	newest, err := s.o.Store.Node(ctx, "")
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("look at the checkpoints of the node: %w", err)
	}
	if newest != nil {
		if err := s.ours(newest.ClusterID); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodesLooked = true
	if newest != nil && s.nodeState.Last == nil {
		s.nodeState.Last = nodeSummary(newest)
	}
	return nil
}

// ours holds the cluster that a checkpoint is of against the service's; 0 is not known.
func (s *Service) ours(cluster uint64) error {
	if own := s.o.Create.ClusterID; cluster != 0 && own != 0 && cluster != own {
		return fmt.Errorf("%w: %s holds those of cluster %d, this is cluster %d", ErrOtherCluster, s.o.Store.Root(), cluster, own)
	}
	return nil
}
