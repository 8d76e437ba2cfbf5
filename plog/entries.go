package plog

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// readChunk is the size of the reads of Entries from disk.
const readChunk = 64 << 10

// wireSize is the size of an entry as Raft counts it for its limits: that of its protobuf encoding.
func wireSize(index, term uint64, typ uint8, data int) uint64 {
	n := 3 + varintLen(uint64(typ)) + varintLen(term) + varintLen(index)
	if data > 0 {
		n += 1 + varintLen(uint64(data)) + data
	}
	return uint64(n)
}

func varintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// Entries returns the entries [lo,hi), durable or not, as many as fit into maxBytes (counted as Raft does) but at
// least one. The caller owns them. ErrCompacted: lo was released. ErrUnavailable: hi is beyond LastIndex+1.
func (l *Log) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	out, err := l.entries(lo, hi, maxBytes)
	if err != nil {
		return nil, l.readFailed(err)
	}
	return out, nil
}

func (l *Log) entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	var out []Entry
	for lo < hi {
		l.mu.Lock()
		if err := l.readable(lo, hi); err != nil {
			l.mu.Unlock()
			return nil, err
		}
		if l.cache.holds(lo) {
			out, _ = l.cache.collect(out, lo, hi, &maxBytes)
			l.mu.Unlock()
			return out, nil
		}
		s := l.find(lo)
		to := hi
		if first, ok := l.cache.firstIndex(); ok {
			to = min(to, first)
		}
		if s == nil {
			l.mu.Unlock()
			return nil, l.corrupt(0, 0, lo, KindOrder)
		}
		to = min(to, s.last+1)
		var full bool
		var err error
		out, full, err = l.readLocked(s, out, lo, to, &maxBytes)
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if full {
			return out, nil
		}
		lo = to
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return out, l.readable(lo, hi)
}

// readable checks the bounds of a read. mu is held.
func (l *Log) readable(lo, hi uint64) error {
	switch {
	case l.closed:
		return ErrClosed
	case lo <= l.base && lo < hi:
		return fmt.Errorf("%w: %d, first is %d", ErrCompacted, lo, l.base+1)
	case hi > l.tail.last+1:
		return fmt.Errorf("%w: %d, last is %d", ErrUnavailable, hi-1, l.tail.last)
	}
	return nil
}

// readLocked appends the entries [lo,hi) of s to out. mu is held, and dropped while the disk is read.
func (l *Log) readLocked(s *segment, out []Entry, lo, hi uint64, budget *uint64) ([]Entry, bool, error) {
	if err := l.acquire(s); err != nil {
		return nil, false, err
	}
	defer l.releaseLocked(s)
	p, err := l.pointLocked(s, lo)
	if err != nil {
		return nil, false, err
	}
	c := cursor{buf: make([]byte, readChunk)}
	c.start(s.file, s, l.partition, p, s.end)
	l.mu.Unlock()
	defer l.mu.Lock()
	defer func() { l.metrics.read(c.bytes, 0) }()
	for {
		var e Entry
		if err := c.next(&e); errors.Is(err, io.EOF) {
			return nil, false, c.corrupt(KindSegmentTruncated)
		} else if err != nil {
			return nil, false, err
		}
		if e.Index < lo {
			continue
		}
		size := wireSize(e.Index, e.Term, e.Type, len(e.Data))
		if size > *budget && len(out) > 0 {
			return out, true, nil
		}
		*budget -= min(size, *budget)
		e.Data = append([]byte(nil), e.Data...)
		out = append(out, e)
		if e.Index+1 == hi {
			return out, false, nil
		}
	}
}

// pointLocked returns the index point to decode from to reach index, which s holds. mu is held, and dropped
// while the index is loaded. s is acquired.
func (l *Log) pointLocked(s *segment, index uint64) (point, error) {
	if s.points == nil {
		if err := l.loadPoints(s); err != nil {
			return point{}, err
		}
	}
	if p, ok := pointFor(s.points, index); ok {
		return p, nil
	}
	return point{index: s.first, off: segmentHeaderLen}, nil
}

// loadPoints makes the index of a sealed segment, verifying all of it.
func (l *Log) loadPoints(s *segment) error {
	sc := newScanner(s.file, l.partition, s.seq, s.end, s.first, 0)
	end, link := s.end, s.link
	l.mu.Unlock()
	points, err := l.scanSealed(sc, s, end, link)
	l.mu.Lock()
	if err == nil && s.points == nil {
		s.points = points
		l.limitOpen()
	}
	return err
}

func (l *Log) scanSealed(sc *scanner, s *segment, end int64, link uint32) ([]point, error) {
	h, ok, err := readSegmentHeader(sc.f)
	if err != nil {
		return nil, err
	}
	if !ok || h.seq != s.seq || h.partition != l.partition || h.first != s.first {
		return nil, l.corrupt(s.seq, 0, s.first, KindSegmentHeader)
	}
	points := make([]point, 0, 64)
	var fr frame
	for sc.off < end {
		kind, err := sc.scan(&fr)
		if err != nil {
			return nil, err
		}
		if kind != "" {
			off, decree := sc.place(kind)
			return nil, l.corrupt(s.seq, off, decree, kind)
		}
		points = fr.points(points)
	}
	l.metrics.read(sc.off, 0)
	if sc.link != link {
		return nil, l.corrupt(s.seq, sc.off, sc.next, KindLink)
	}
	return points, nil
}

// Term returns the term of a decree in [FirstIndex-1, LastIndex].
func (l *Log) Term(index uint64) (uint64, error) {
	term, err := l.term(index)
	if err != nil {
		return 0, l.readFailed(err)
	}
	return term, nil
}

func (l *Log) term(index uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return 0, ErrClosed
	case index == l.base:
		return l.baseTerm, nil
	case index < l.base:
		return 0, fmt.Errorf("%w: %d, first is %d", ErrCompacted, index, l.base+1)
	case index > l.tail.last:
		return 0, fmt.Errorf("%w: %d, last is %d", ErrUnavailable, index, l.tail.last)
	case l.cache.holds(index):
		return l.cache.term(index), nil
	}
	s := l.find(index)
	if s == nil {
		return 0, l.corrupt(0, 0, index, KindOrder)
	}
	if s.firstTerm == s.lastTerm || index == s.last {
		return s.lastTerm, nil
	}
	return l.termLocked(s, index)
}

// termLocked reads the term of index from s. mu is held, and dropped while the disk is read.
func (l *Log) termLocked(s *segment, index uint64) (uint64, error) {
	if err := l.acquire(s); err != nil {
		return 0, err
	}
	defer l.releaseLocked(s)
	p, err := l.pointLocked(s, index)
	if err != nil {
		return 0, err
	}
	if next, ok := pointFor(s.points, index+1); p.index == index && p.term != 0 || ok && next.index == index+1 && next.term == p.term {
		return p.term, nil
	}
	c := cursor{buf: make([]byte, readChunk)}
	c.start(s.file, s, l.partition, p, s.end)
	l.mu.Unlock()
	defer l.mu.Lock()
	for {
		var e Entry
		if err := c.next(&e); errors.Is(err, io.EOF) {
			return 0, l.corrupt(s.seq, c.off, index, KindSegmentTruncated)
		} else if err != nil {
			return 0, err
		}
		if e.Index == index {
			return e.Term, nil
		}
	}
}
