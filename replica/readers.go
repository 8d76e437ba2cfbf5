package replica

import (
	"context"
	"slices"
)

// readers are the views that wait until they may read. All of it is guarded by the partition's mu.
//
// A waiting view is covered by the first ReadIndex that the host issues after it began (seq), learns the index that
// it must see, and starts when that is applied.
type readers struct {
	waiting []*reader
	asked   bool // the host has been told that there are views without a seq
	ended   bool // the partition's goroutine has ended: nothing wakes a view any more
}

type reader struct {
	seq   uint64 // 0: not issued
	index uint64 // 0: not known
	done  chan error
}

// waitReadable returns when a read at the applied decree is linearizable.
func (p *Partition) waitReadable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	if err := p.unreadable(); err != nil {
		p.mu.Unlock()
		return err
	}
	if p.single.Load() {
		p.mu.Unlock()
		return nil
	}
	if p.readers.ended {
		p.mu.Unlock()
		return ErrStopped
	}
	r := &reader{done: make(chan error, 1)}
	p.readers.waiting = append(p.readers.waiting, r)
	ask := !p.readers.asked
	p.readers.asked = true
	p.mu.Unlock()
	if ask {
		p.h.post(hostEvent{kind: hostReadIndex, g: p.group})
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		p.readers.waiting = slices.DeleteFunc(p.readers.waiting, func(w *reader) bool { return w == r })
		return ctx.Err()
	}
}

// unreadable is why views are not served. mu is held.
func (p *Partition) unreadable() error {
	switch {
	case p.phase == phaseFailed:
		return &FailedError{Partition: p.id, Cause: p.err}
	case p.phase == phaseStopped:
		return ErrStopped
	case p.phase != phaseOpen:
		return ErrNotReady
	case p.single.Load() && !p.serving.Load():
		return ErrNotReady
	}
	return nil
}

// issueReads gives seq to the views that have none, and says whether there are any.
func (p *Partition) issueReads(seq uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readers.asked = false
	issued := false
	for _, r := range p.readers.waiting {
		if r.seq == 0 {
			r.seq, issued = seq, true
		}
	}
	return issued
}

// unanswered says whether there are views that have a seq and no index.
func (p *Partition) unanswered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.readers.waiting, func(r *reader) bool { return r.seq != 0 && r.index == 0 })
}

// readIndexed tells the views up to seq which index they must see.
func (p *Partition) readIndexed(seq, index uint64) {
	p.mu.Lock()
	for _, r := range p.readers.waiting {
		if r.seq != 0 && r.seq <= seq && r.index == 0 {
			r.index = max(index, 1)
		}
	}
	p.mu.Unlock()
	p.wakeReaders(p.Applied())
}

// wakeReaders starts the views whose index is applied.
func (p *Partition) wakeReaders(applied uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.readers.waiting) == 0 {
		return
	}
	p.readers.waiting = slices.DeleteFunc(p.readers.waiting, func(r *reader) bool {
		if r.index == 0 || r.index > applied {
			return false
		}
		r.done <- nil
		return true
	})
}

// end ends all waiting views, and those that would have to wait from now on. mu is held.
func (rs *readers) end(err error) {
	for _, r := range rs.waiting {
		r.done <- err
	}
	rs.waiting, rs.ended = nil, true
}
