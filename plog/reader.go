package plog

import (
	"context"
	"errors"
	"io"
)

// A Reader's buffer starts small, for those who follow the live tail, and grows while whole buffers are read. Nobody asks the
// kernel to read ahead: it sees that the reads follow one another and fills large folios, while what it is asked for
// explicitly comes page by page, at four times the processor time.
const (
	minReadBuffer = 64 << 10
	maxReadBuffer = 256 << 10
)

// Reader streams the durable and committed entries of a log in order, each verified, without allocating per
// record. It is used by one goroutine.
type Reader struct {
	l       *Log
	c       cursor
	s       *segment // acquired
	next    uint64
	limit   uint64 // the last decree that may be returned without looking at the log
	records uint64 // returned since the last report to the metrics
	closed  bool

	signal  chan struct{}
	waiting bool // in Log.waiters; guarded by Log.mu
}

// NewReader returns a Reader whose first entry is from. ErrCompacted: from was released. from may be beyond the
// last decree: Wait for it.
func (l *Log) NewReader(from uint64) (*Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unusable(); err != nil {
		return nil, err
	}
	if from <= l.base {
		return nil, ErrCompacted
	}
	return &Reader{l: l, next: from, signal: make(chan struct{}, 1), c: cursor{buf: make([]byte, minReadBuffer), growing: true}}, nil
}

// Next returns the next entry; its Data is valid until the next call. io.EOF: nothing more is durable and
// committed yet. ErrCompacted: the entry was released meanwhile. *ErrCorrupt: it is damaged.
func (r *Reader) Next() (Entry, error) {
	var e Entry
	for {
		if r.next > r.limit {
			if err := r.advance(); err != nil {
				return Entry{}, r.l.readFailed(err)
			}
		}
		if err := r.c.next(&e); err != nil {
			if errors.Is(err, io.EOF) {
				err = r.c.corrupt(KindSegmentTruncated)
			}
			return Entry{}, r.l.readFailed(err)
		}
		if e.Index == r.next {
			r.next++
			r.records++
			return e, nil
		}
	}
}

// advance looks at the log for how far the reader may go, and enters the segment of the next decree.
func (r *Reader) advance() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.read(r.c.bytes, r.records)
	r.c.bytes, r.records = 0, 0
	switch {
	case r.closed || l.closed:
		return ErrClosed
	case r.next <= l.base:
		return ErrCompacted
	case r.next > l.visible():
		return io.EOF
	}
	s := l.find(r.next)
	if s == nil {
		return l.corrupt(0, 0, r.next, KindOrder)
	}
	if s != r.s {
		if err := r.enter(s); err != nil {
			return err
		}
	}
	r.c.end = s.end
	r.limit = min(l.visible(), s.last)
	return nil
}

// enter moves the reader to the segment of its next decree. Log.mu is held, and dropped while the disk is read.
func (r *Reader) enter(s *segment) error {
	l := r.l
	r.leave()
	if err := l.acquire(s); err != nil {
		return err
	}
	r.s = s
	p := point{index: s.first, off: segmentHeaderLen}
	if r.next != s.first {
		var err error
		if p, err = l.pointLocked(s, r.next); err != nil {
			r.leave()
			return err
		}
	}
	r.c.start(s.file, s, l.partition, p, s.end)
	return nil
}

// leave lets go of the segment. Log.mu is held.
func (r *Reader) leave() {
	if r.s != nil {
		r.l.releaseLocked(r.s)
		r.s = nil
	}
	r.limit = 0
}

// Wait blocks until Next has something else to say than io.EOF, or ctx ends.
func (r *Reader) Wait(ctx context.Context) error {
	l := r.l
	for {
		l.mu.Lock()
		switch {
		case r.closed || l.closed:
			l.mu.Unlock()
			return ErrClosed
		case r.next <= max(l.visible(), l.base):
			l.mu.Unlock()
			return nil
		case l.failed != nil:
			err := l.failed
			l.mu.Unlock()
			return err
		}
		if !r.waiting {
			r.waiting = true
			l.waiters = append(l.waiters, r)
		}
		l.mu.Unlock()
		select {
		case <-r.signal:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close lets go of what the reader holds.
func (r *Reader) Close() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.leave()
	if r.waiting {
		r.waiting = false
		for i, w := range l.waiters {
			if w == r {
				l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
				break
			}
		}
	}
	return nil
}
