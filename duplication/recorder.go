package duplication

import (
	"context"
	"sync"

	"replicanode/internal/pause"
)

// run runs the pipelines until ctx ends, and records meanwhile what the remotes have confirmed: at most once per interval, and
// once when the pipelines have ended. Each partition records for itself, so that one that is stuck does not hold up the others.
func (f *feed) run(ctx context.Context) {
	var pipelines sync.WaitGroup
	for _, p := range f.pipelines {
		pipelines.Go(func() { p.run(ctx) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-f.changed:
			_ = pause.For(ctx, f.interval) // what was confirmed is recorded in any case
			f.record(ctx)
		}
	}
	pipelines.Wait()
	f.record(ctx)
}

// dirty tells run that a remote has confirmed more.
func (f *feed) dirty() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *feed) record(ctx context.Context) {
	for _, p := range f.pipelines {
		p.record(ctx)
	}
}

// record writes what the remote has confirmed into the partition, if that is news.
func (p *pipeline) record(ctx context.Context) {
	p.mu.Lock()
	confirmed, news := p.confirmed, p.known && p.confirmed != p.recorded
	p.mu.Unlock()
	if _, isSelf := p.feed.partition.Leader(); !news || !isSelf {
		return
	}
	if err := p.feed.partition.RecordConfirmed(p.remote.Name, confirmed); err != nil {
		// Nothing is lost: the remote itself knows, and the next confirmation tries again.
		p.warn(ctx, failureKind{message: "duplication progress cannot be recorded"}, err, 0, "confirmed", confirmed)
		return
	}
	p.mu.Lock()
	p.recorded = confirmed
	p.mu.Unlock()
}
