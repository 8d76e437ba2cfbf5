package plog

import (
	"fmt"
	"time"
)

// group is what one commit writes: the batches appended while the previous one was in flight.
type group struct {
	buf    []byte // the frames of all chunks
	chunks []chunk
	dones  []func(error)
	points []point
	began  time.Time // first Append
}

// chunk is the part of a group that goes into one segment. Batches never straddle chunks.
type chunk struct {
	seq        uint64
	off        int64 // in the segment
	start, end int   // in group.buf
	doneEnd    int   // in group.dones; begins where the chunk before ends
	pointEnd   int   // in group.points, likewise
	firstTerm  uint64
	entries    uint64
	batches    int
	after      position

	opens   bool   // the chunk begins a new segment
	size    int64  // of that segment at least
	first   uint64 // decree it begins with
	cut     uint64 // not 0: replaces everything from this decree on
	cutTerm uint64 // term of decree cut-1
}

// maxKeptBuffer bounds the buffer a group keeps for the next one.
const maxKeptBuffer = 4 << 20

func (g *group) reset() {
	if cap(g.buf) > maxKeptBuffer {
		g.buf = nil
	}
	clear(g.dones)
	g.buf, g.chunks, g.dones, g.points = g.buf[:0], g.chunks[:0], g.dones[:0], g.points[:0]
}

// Append buffers one batch, entries and hard state together, and returns at once. The batch is durable as a
// whole or not at all. done, if not nil, is called once, by a worker of the Syncer or in somebody's AppendSync, and in the order of the appends: with
// nil when everything up to and including this batch is durable; with ErrDiskFull when nothing of it is in the log,
// which goes on as if Append had not been called; with another error when the log is dead. done must not block,
// nor call Release, Reset or Close. Nothing of entries is kept: Append copies.
//
// Entries must be contiguous and have terms that do not go back. When the first one is not beyond LastIndex it
// replaces that decree and all after it; a committed decree cannot be replaced. An Append without entries and hard
// state is a barrier. When Append returns an error, done is not called and the log is unchanged.
func (l *Log) Append(entries []Entry, hs *HardState, done func(error)) error {
	wake, err := l.buffer(entries, hs, done)
	if err != nil {
		return fmt.Errorf("append to plog of partition %d: %w", l.partition, err)
	}
	if wake {
		l.syncer.enqueue(l)
	}
	return nil
}

// AppendSync is Append for those who wait: it returns when the batch is durable, or with the error that done would get.
// When neither this log nor any other of the Syncer's is being written, the caller writes and syncs in place, which spares two
// changes of goroutine.
func (l *Log) AppendSync(entries []Entry, hs *HardState) error {
	w, ok := l.waiting.Get().(*waiter)
	if !ok {
		w = newWaiter()
	}
	wake, err := l.buffer(entries, hs, w.report)
	if err != nil {
		l.waiting.Put(w)
		return fmt.Errorf("append to plog of partition %d: %w", l.partition, err)
	}
	switch {
	case wake && l.syncer.enter():
		again := l.commit()
		l.syncer.leave()
		if again {
			l.syncer.enqueue(l)
		}
	case wake:
		l.syncer.enqueue(l)
	}
	err = <-w.done
	l.waiting.Put(w)
	return err
}

// waiter is what one AppendSync waits with.
type waiter struct {
	done   chan error
	report func(error)
}

func newWaiter() *waiter {
	w := &waiter{done: make(chan error, 1)}
	w.report = func(err error) { w.done <- err }
	return w
}

// buffer puts a batch into the pending group. wake: the log has to be committed by somebody, who is not yet told.
func (l *Log) buffer(entries []Entry, hs *HardState, done func(error)) (wake bool, err error) {
	size, err := batchSize(entries, hs)
	if err != nil {
		return false, err
	}
	var cutTerm uint64
	if len(entries) > 0 && entries[0].Index <= l.LastIndex() && entries[0].Index > 0 {
		if cutTerm, err = l.Term(entries[0].Index - 1); err != nil && l.Failed() == nil {
			return false, fmt.Errorf("at %d: %w", entries[0].Index, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(entries, size, cutTerm); err != nil {
		return false, err
	}
	g := l.pend
	if len(g.chunks) == 0 {
		g.began = time.Now()
	}
	c := l.chunkFor(g, entries, size, cutTerm)
	if size > 0 {
		l.encode(g, c, entries, hs)
		c.batches++
	}
	g.dones = append(g.dones, done)
	c.end, c.doneEnd, c.pointEnd, c.after = len(g.buf), len(g.dones), len(g.points), l.tail
	wake = !l.queued
	l.queued = true
	return wake, nil
}

// batchSize checks entries for themselves and returns the encoded size of the batch.
func batchSize(entries []Entry, hs *HardState) (int64, error) {
	var size int64
	for i := range entries {
		e := &entries[i]
		if i == 0 || e.Term != entries[i-1].Term {
			size += frameHeaderLen
		}
		if i > 0 && (e.Index != entries[i-1].Index+1 || e.Term < entries[i-1].Term) {
			return 0, fmt.Errorf("%w: (%d, term %d) after (%d, term %d)",
				ErrOrder, e.Index, e.Term, entries[i-1].Index, entries[i-1].Term)
		}
		size += recordHeaderLen + int64(len(e.Data))
	}
	if hs != nil {
		size += hardStateLen
		if len(entries) == 0 {
			size += frameHeaderLen
		}
	}
	if size > MaxBatchBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, int64(MaxBatchBytes))
	}
	return size, nil
}

// admit says whether the batch can follow what is in the log. mu is held.
func (l *Log) admit(entries []Entry, size int64, cutTerm uint64) error {
	if err := l.unusable(); err != nil {
		return err
	}
	if l.syncer.stopped() {
		return ErrClosed
	}
	if l.refuse {
		l.refuse = false
		return fmt.Errorf("%w: an earlier batch failed", ErrDiskFull)
	}
	if waiting := l.inflight + int64(len(l.pend.buf)); waiting > 0 && waiting+size > l.opts.MaxPendingBytes {
		return fmt.Errorf("%w: %d bytes", ErrBacklog, waiting)
	}
	if len(entries) == 0 {
		return nil
	}
	first, before := &entries[0], l.tail.lastTerm
	switch {
	case first.Index > l.tail.last+1 && l.full:
		return fmt.Errorf("%w: decree %d is missing", ErrDiskFull, l.tail.last+1)
	case first.Index > l.tail.last+1:
		return fmt.Errorf("%w: decree %d after %d", ErrOrder, first.Index, l.tail.last)
	case first.Index <= l.base:
		return fmt.Errorf("%w: decree %d, first is %d", ErrCompacted, first.Index, l.base+1)
	case first.Index <= min(l.committed, l.tail.last):
		return fmt.Errorf("%w: decree %d, committed is %d", ErrCommitted, first.Index, l.committed)
	case first.Index <= l.tail.last:
		before = cutTerm
	}
	if first.Term < before {
		return fmt.Errorf("%w: decree %d has term %d after term %d", ErrOrder, first.Index, first.Term, before)
	}
	return nil
}

// chunkFor returns the chunk the batch goes to, with the tail at its place. mu is held.
func (l *Log) chunkFor(g *group, entries []Entry, size int64, cutTerm uint64) *chunk {
	next, cut := l.tail.last+1, uint64(0)
	if len(entries) > 0 && entries[0].Index <= l.tail.last {
		next, cut = entries[0].Index, entries[0].Index
		l.cache.truncate(cut)
		l.tail.last, l.tail.lastTerm = cut-1, cutTerm
		l.pendingCut = min(l.pendingCut, cut)
	}
	c := chunk{start: len(g.buf)}
	switch {
	case cut != 0 || l.tail.off+size > l.tailCap:
		l.tail.seq++
		l.tail.off, l.nextPoint = segmentHeaderLen, 0
		l.tail.link = firstLink(segmentKey(l.partition, l.tail.seq))
		l.tailCap = max(l.opts.sizeAfter(l.tailCap), segmentHeaderLen+size)
		c.opens, c.size, c.first, c.cut, c.cutTerm = true, l.tailCap, next, cut, cutTerm
	case len(g.chunks) > 0:
		return &g.chunks[len(g.chunks)-1]
	}
	c.seq, c.off = l.tail.seq, l.tail.off
	g.chunks = append(g.chunks, c)
	return &g.chunks[len(g.chunks)-1]
}

// encode writes the batch as one frame per term into g. mu is held.
func (l *Log) encode(g *group, c *chunk, entries []Entry, hs *HardState) {
	key := segmentKey(l.partition, l.tail.seq)
	h := frameHeader{first: l.tail.last + 1, term: l.tail.lastTerm, session: l.session}
	if hs != nil {
		l.tail.hs = *hs
		h.hs, h.flags = *hs, flagHardState
	}
	if len(entries) == 0 {
		l.frame(g, &h, key, nil)
		return
	}
	if c.entries == 0 {
		c.firstTerm = entries[0].Term
	}
	c.entries += uint64(len(entries))
	for from := 0; from < len(entries); {
		to := from + 1
		for to < len(entries) && entries[to].Term == entries[from].Term {
			to++
		}
		h.first, h.term = entries[from].Index, entries[from].Term
		h.flags &^= flagContinued
		if to < len(entries) {
			h.flags |= flagContinued
		}
		l.frame(g, &h, key, entries[from:to])
		h.flags &^= flagHardState
		from = to
	}
	last := &entries[len(entries)-1]
	l.tail.last, l.tail.lastTerm = last.Index, last.Term
	l.lastIndex.Store(last.Index)
	l.evict()
}

// frame encodes one frame at the tail and moves the tail behind it. mu is held.
func (l *Log) frame(g *group, h *frameHeader, key uint64, entries []Entry) {
	start := len(g.buf)
	var room [frameHeaderLen + hardStateLen]byte
	g.buf = append(g.buf, room[:h.size()]...)
	h.digest = 0
	for i := range entries {
		e := &entries[i]
		off := l.tail.off + int64(len(g.buf)-start)
		if off >= l.nextPoint {
			l.nextPoint = off + pointSpacing
			g.points = append(g.points, point{index: e.Index, term: e.Term, off: uint32(off), left: uint32(len(entries) - i)})
		}
		var crc uint32
		g.buf, crc = appendRecord(g.buf, key, off, e)
		h.digest = fold(h.digest, crc)
		l.cache.add(e)
	}
	h.count, h.link = uint32(len(entries)), l.tail.link
	h.body = uint32(len(g.buf) - start - h.size())
	h.put(g.buf[start:], key, l.tail.off)
	l.tail.link = h.chain
	l.tail.off += int64(len(g.buf) - start)
}
