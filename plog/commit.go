package plog

import (
	"errors"
	"fmt"
	"time"
)

// commit writes and syncs what was appended. again is true when more was appended meanwhile.
func (l *Log) commit() (again bool) {
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	return l.commitLocked()
}

func (l *Log) commitLocked() (again bool) {
	l.mu.Lock()
	g := l.pend
	if len(g.chunks) == 0 {
		l.queued = false
		l.mu.Unlock()
		return false
	}
	l.takeLocked()
	err := l.failed
	l.mu.Unlock()
	if l.unmarked && err == nil {
		err = l.remark()
	}

	for i := range g.chunks {
		if err == nil {
			err = l.Failed() // the end of the chunk before may have been what the log died of
		}
		if err == nil {
			err = l.writeChunk(g, &g.chunks[i])
		}
		if err != nil {
			l.abort(g, i, err)
			break
		}
		l.publish(g, i)
	}
	return l.finish(g)
}

// remark has the manifest name the journal, before it holds the first bytes of this log. Without space for that the log goes on syncing itself.
// ioMu is held.
func (l *Log) remark() error {
	l.unmarked = false
	if err := l.install(l.describe(), keepBallast); err != nil && !errors.Is(err, ErrDiskFull) {
		return err
	}
	return nil
}

// takeLocked takes the pending group. ioMu and mu are held.
func (l *Log) takeLocked() *group {
	g := l.pend
	l.pend, l.idle = l.idle, nil
	l.inflight = int64(len(g.buf))
	return g
}

// finish ends the commit of g. again is true when more was appended meanwhile. ioMu is held.
func (l *Log) finish(g *group) (again bool) {
	g.reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle, l.inflight = g, 0
	l.queued = len(l.pend.chunks) > 0
	if !l.queued { // the buffer just used is in the processor's cache
		l.pend, l.idle = l.idle, l.pend
	}
	return l.queued
}

// writeChunk makes one chunk durable. ioMu is held; the chunk is not visible to anybody else.
func (l *Log) writeChunk(g *group, c *chunk) error {
	if c.opens {
		if err := l.rotate(c); err != nil {
			return err
		}
	}
	if c.start == c.end {
		return nil
	}
	if l.fixManifest {
		if err := l.settle(); err != nil {
			return err
		}
		if err := l.install(l.describe(), keepBallast); err != nil {
			return err
		}
	}
	l.mu.Lock()
	s := l.active()
	l.mu.Unlock()
	if l.headerDue {
		l.encodeHeader(s)
		if _, err := s.file.WriteAt(l.header[:], 0); err != nil {
			return l.writeFailed(s, 0, err)
		}
	}
	if err := l.put(g, c, s); err != nil {
		return err
	}
	began := time.Now()
	if err := l.syncActive(s); err != nil {
		return err
	}
	l.headerDue, l.eraseDue = false, false
	l.metrics.synced(time.Since(began))
	l.metrics.wrote(c)
	return nil
}

// put writes the bytes of c to its segment. ioMu is held.
func (l *Log) put(g *group, c *chunk, s *segment) error {
	b := g.buf[c.start:c.end]
	if len(b) == 0 {
		return nil
	}
	if c.off > segmentHeaderLen {
		markSynced(b, s.key, c.off)
	}
	if _, err := s.file.WriteAt(b, c.off); err != nil {
		return l.writeFailed(s, c.off, err)
	}
	return nil
}

// syncActive syncs the active segment itself. ioMu is held.
func (l *Log) syncActive(s *segment) error {
	if err := s.file.SyncData(); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(fmt.Errorf("sync plog segment %d: %w", s.seq, err))
	}
	l.unsettled = false
	return nil
}

// writeFailed tells a full disk, after which the same place is written again, from an unknown state.
func (l *Log) writeFailed(s *segment, off int64, err error) error {
	err = fmt.Errorf("write plog segment %d at %d: %w", s.seq, off, err)
	if !isDiskFull(err) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(err)
	}
	if l.eraseDue = l.eraseDue || off > 0; l.eraseDue {
		if err := l.erase(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrDiskFull, err)
}

// erase makes what a failed write left behind the end unreadable: its first batches may be there as a whole, and were refused.
// On a disk without room even for that it stays due; then the next write to this place does the same. ioMu is held.
func (l *Log) erase() error {
	l.mu.Lock()
	s, off := l.active(), l.done.off
	l.mu.Unlock()
	var none [frameHeaderLen]byte
	_, err := s.file.WriteAt(none[:], off)
	if err != nil && isDiskFull(err) {
		return nil
	}
	if err == nil {
		err = s.file.SyncData()
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(fmt.Errorf("erase plog segment %d at %d: %w", s.seq, off, err))
	}
	l.eraseDue = false
	return nil
}

// rotate makes the segment of c the active one. ioMu is held.
func (l *Log) rotate(c *chunk) error {
	if err := l.settle(); err != nil {
		return err
	}
	f, err := l.files.take(c.seq, c.size)
	if err != nil {
		return l.fileFailed(err)
	}
	m := l.describe()
	l.seal(m)
	m.activeSeq, m.activeFirst, m.activeSize, m.activeSynced = c.seq, c.first, f.size, 0
	m.cut, m.cutTerm = c.cut, c.cutTerm
	if err := l.install(m, keepBallast); err != nil {
		l.files.giveBack(c.seq, f, err)
		l.trimIfFrugal()
		return err
	}
	l.headerDue, l.eraseDue = true, false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(&segment{seq: c.seq, key: segmentKey(l.partition, c.seq), size: f.size, file: f.file, first: c.first,
		last: c.first - 1, end: segmentHeaderLen, link: firstLink(segmentKey(l.partition, c.seq))})
	return nil
}

// fileFailed turns an error of files into the log's: a full disk passes, everything else is fatal.
func (l *Log) fileFailed(err error) error {
	if isDiskFull(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fail(err)
}

// enter seals the active segment, or drops it when it holds nothing, and makes s active. ioMu and mu are held.
func (l *Log) enter(s *segment) {
	old := l.active()
	old.sealed = true
	if old.empty() {
		l.segs = l.segs[:len(l.segs)-1]
		l.dropLocked(old)
	}
	l.segs = append(l.segs, s)
	l.done.seq, l.done.off, l.done.link = s.seq, s.end, s.link
	l.limitOpen()
}

func (l *Log) dropLocked(s *segment) {
	s.dropped = true
	if s.refs == 0 {
		l.retire(s)
	}
}

// publish makes the chunk, now durable, visible, and reports it. ioMu is held.
func (l *Log) publish(g *group, i int) {
	c := &g.chunks[i]
	doneStart, pointStart := 0, 0
	if i > 0 {
		doneStart, pointStart = g.chunks[i-1].doneEnd, g.chunks[i-1].pointEnd
	}
	l.mu.Lock()
	if c.cut != 0 {
		l.applyCut(c.cut, c.cutTerm)
	}
	s := l.active()
	if c.entries > 0 {
		if s.empty() {
			s.firstTerm = c.firstTerm
		}
		s.last, s.lastTerm = c.after.last, c.after.lastTerm
	}
	s.end, s.link = c.off+int64(c.end-c.start), c.after.link
	s.points = append(s.points, g.points[pointStart:c.pointEnd]...)
	before := l.visible()
	l.done = c.after
	l.full = false
	l.durableIndex.Store(l.done.last)
	if l.pendingCut != noCut {
		l.pendingCut = min(lowestCut(g.chunks[i+1:]), lowestCut(l.pend.chunks))
	}
	l.evict()
	if l.visible() > before {
		l.wake()
	}
	if s.end-segmentHeaderLen > s.size/4 && l.prepared <= s.seq {
		next, size := s.seq+1, l.opts.sizeAfter(s.size)
		l.prepared = next
		l.backgroundLocked(func() { l.files.prepare(next, size) })
	}
	l.mu.Unlock()
	l.metrics.committed(time.Since(g.began), c)
	for _, done := range g.dones[doneStart:c.doneEnd] {
		if done != nil {
			done(nil)
		}
	}
	if c.cut != 0 {
		l.finishCut()
	}
}

// applyCut forgets the sealed decrees from cut on. ioMu and mu are held.
func (l *Log) applyCut(cut, cutTerm uint64) {
	live := l.segs[:0]
	active := l.active()
	for _, s := range l.segs {
		switch {
		case s == active || s.last < cut:
			live = append(live, s)
		case s.first < cut:
			s.last, s.lastTerm = cut-1, cutTerm
			live = append(live, s)
		default:
			l.orphans = append(l.orphans, s)
		}
	}
	clear(l.segs[len(live):])
	l.segs = live
}

// finishCut writes the manifest without the cut and frees what it cut off. On a full disk that waits for the
// next manifest. ioMu is held.
func (l *Log) finishCut() {
	if err := l.install(l.describe(), mayDropBallast); err != nil && !errors.Is(err, ErrDiskFull) {
		l.log.Error("manifest not written after a cut", "partition", l.partition, "error", err)
	}
}

// abort reports err to the chunks from i on. On a full disk it takes the log back to what is durable, together with
// everything appended meanwhile. ioMu is held.
func (l *Log) abort(g *group, i int, err error) {
	start := 0
	if i > 0 {
		start = g.chunks[i-1].doneEnd
	}
	l.mu.Lock()
	dones := append([]func(error){}, g.dones[start:]...)
	dones = append(dones, l.pend.dones...)
	l.pend.reset()
	if l.failed == nil {
		if !l.full {
			l.log.Warn("private log: disk full", "partition", l.partition, "durable", l.done.last, "error", err)
		}
		l.rollback()
		l.metrics.diskFull()
	}
	l.mu.Unlock()
	for _, done := range dones {
		if done != nil {
			done(err)
		}
	}
}

// rollback makes the tail what is durable. ioMu and mu are held.
func (l *Log) rollback() {
	s := l.active()
	if n := len(l.segs); s.empty() && n > 1 && s.first <= l.segs[n-2].last {
		s.first = l.segs[n-2].last + 1
		s.last = s.first - 1
		l.fixManifest, l.headerDue = true, true
	}
	if l.pendingCut == noCut {
		l.cache.truncate(l.done.last + 1)
	} else {
		l.cache.truncate(0)
		l.pendingCut = noCut
	}
	l.tail, l.tailCap, l.nextPoint = l.done, s.size, 0
	l.session = (l.session + 1) & 0xffffff
	l.full, l.refuse = true, true
	l.lastIndex.Store(l.tail.last)
}

func lowestCut(chunks []chunk) uint64 {
	low := uint64(noCut)
	for i := range chunks {
		if cut := chunks[i].cut; cut != 0 {
			low = min(low, cut)
		}
	}
	return low
}
