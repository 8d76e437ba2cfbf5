package plog

import (
	"runtime"
	"time"
)

const (
	// maxRoundLogs bounds the logs of a round.
	maxRoundLogs = 1024
	// ioTries is how often a round looks for a log that somebody else is writing.
	ioTries = 3
)

// round is what one worker commits with one block of the journal.
type round struct {
	block  block
	logs   []*Log // taken from the queue
	staged []*Log // written to their segments, their ioMu held
	again  []*Log // have more to write
	later  []*Log // found no room in the block: are the first of the next one
	direct []*Log // to be committed on their own
}

// staging says what became of a log in a round.
type staging uint8

const (
	stagedBlock staging = iota // in the block; ioMu is held
	stagedDirect
	stagedLater
	stagedNothing
)

// run commits the logs of the round.
func (r *round) run(j *Journal, m *Metrics) {
	limit := j.room()
	if limit == 0 {
		r.direct = append(r.direct, r.logs...)
		m.journalFallback(len(r.logs))
		return
	}
	r.block.reset(limit)
	for _, l := range r.logs {
		switch l.stage(&r.block, j) {
		case stagedBlock:
			r.staged = append(r.staged, l)
		case stagedDirect:
			r.direct = append(r.direct, l)
		case stagedLater:
			r.later = append(r.later, l)
		}
	}
	if len(r.staged) == 0 {
		return
	}
	began := time.Now()
	err := j.write(&r.block, r.staged)
	if r.block.entries > 0 {
		m.round(time.Since(began), len(r.staged), len(r.block.buf))
	}
	full := isDiskFull(err)
	for _, l := range r.staged {
		if full {
			l.unsettled = true
			err = l.settle()
		}
		if l.unstage(err) {
			r.again = append(r.again, l)
		}
	}
}

func (r *round) reset() {
	clear(r.logs)
	clear(r.staged)
	clear(r.again)
	clear(r.later)
	clear(r.direct)
	r.logs, r.staged, r.again, r.later, r.direct = r.logs[:0], r.staged[:0], r.again[:0], r.later[:0], r.direct[:0]
}

// alone commits the only log that waits by itself, unless somebody else holds it: the next round must not wait for that.
func (r *round) alone(l *Log) {
	if !l.tryIO() {
		r.direct = append(r.direct, l)
		return
	}
	defer l.ioMu.Unlock()
	if l.commitLocked() {
		r.again = append(r.again, l)
	}
}

// tryIO takes ioMu, unless somebody holds it for longer than a moment.
func (l *Log) tryIO() bool {
	for range ioTries {
		if l.ioMu.TryLock() {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// simple says whether what was appended can go through the journal: a few bytes behind what is in the active segment. mu is held.
func (l *Log) simple() bool {
	g := l.pend
	return len(g.chunks) == 1 && !g.chunks[0].opens && len(g.buf) <= maxBlockEntryBytes && l.failed == nil
}

// small says whether committing the log by itself holds up others no longer than a round does.
func (l *Log) small() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pend.chunks) == 0 || l.simple()
}

// stage writes what was appended to the segment and adds it to b, which makes it durable. unstage must follow when it did.
func (l *Log) stage(b *block, j *Journal) staging {
	if !l.tryIO() {
		return stagedDirect
	}
	how := l.stageLocked(b, j)
	if how != stagedBlock {
		l.ioMu.Unlock()
	}
	return how
}

func (l *Log) stageLocked(b *block, j *Journal) staging {
	l.mu.Lock()
	n := len(l.pend.buf)
	switch {
	case len(l.pend.chunks) == 0:
		l.queued = false
		l.mu.Unlock()
		return stagedNothing
	case !l.simple() || l.headerDue || l.eraseDue || l.fixManifest || !l.marked(j) || !b.fits(n) && b.entries == 0:
		l.unmarked = !l.marked(j)
		l.mu.Unlock()
		return stagedDirect
	case !b.fits(n):
		l.mu.Unlock()
		return stagedLater
	}
	g := l.takeLocked()
	s := l.active()
	l.mu.Unlock()
	c := &g.chunks[0]
	if err := l.put(g, c, s); err != nil {
		l.abort(g, 0, err)
		if l.finish(g) {
			return stagedLater
		}
		return stagedNothing
	}
	if n > 0 {
		b.add(l.id, l.partition, s.seq, c.off, g.buf[c.start:c.end])
	}
	l.staged = g
	return stagedBlock
}

// marked says whether the manifest names the journal, and how far it went after the start of this process at least: an older copy of it is noticed. ioMu is held.
func (l *Log) marked(j *Journal) bool { return l.mark == j.id && l.reach.Generation >= j.begun }

// unstage publishes what stage wrote, now durable, or lets it die of err.
func (l *Log) unstage(err error) (again bool) {
	defer l.ioMu.Unlock()
	g := l.staged
	l.staged = nil
	if err != nil {
		l.mu.Lock()
		err = l.fail(err)
		l.mu.Unlock()
		l.abort(g, 0, err)
		return l.finish(g)
	}
	l.unsettled = true
	l.metrics.wrote(&g.chunks[0])
	l.publish(g, 0)
	return l.finish(g)
}
