package checkpoint

import (
	"context"
	"time"
)

const (
	// askAway is the time between two questions to a store that does not answer.
	askAway = 10 * time.Second
	// askFor is how long it has for an answer.
	askFor = 5 * time.Second
)

// watchStore asks a store that does not answer again and again until ctx ends, so that
// its trouble is over as soon as it is, not with the next checkpoint. Then what failed
// meanwhile is made, if that is wanted.
func (s *Service) watchStore(ctx context.Context) {
	ticks := time.NewTicker(askAway)
	defer ticks.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if _, err := s.o.Store.Trouble(); err != nil {
			away = true
			s.askStore(ctx)
		}
		if _, err := s.o.Store.Trouble(); err == nil && away {
			away = false
			s.o.Logger.Info("the store of checkpoints answers again", "store", s.o.Store.Root())
			s.makeUp()
		}
	}
}

// askStore makes one request. Whatever the answer is, Trouble knows it.
func (s *Service) askStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	_, _ = s.o.Store.b.List(ctx, nodesDir)
}

// makeUp asks for a run of each partition whose newest attempt failed.
func (s *Service) makeUp() {
	if !s.o.Renew {
		return
	}
	for _, p := range s.order {
		s.mu.Lock()
		failed := p.state.LastError != ""
		s.mu.Unlock()
		if failed {
			s.Trigger(p.src.ID())
		}
	}
}
