package plog

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	segmentSuffix  = ".seg"
	prepareTmpName = "prepare.tmp"

	// maxFileBytes bounds a segment file: the largest batch in a segment of its own.
	maxFileBytes = MaxSegmentBytes + 2*MaxBatchBytes

	// pointSpacing is the distance of index points. A random read decodes at most this much, and one record,
	// before the wanted one.
	pointSpacing = 8 << 10
)

// point is an entry of a segment's sparse index: a record, and what is needed to decode from there.
type point struct {
	index, term uint64
	off         uint32
	left        uint32 // records of the frame from here on
}

// segment is one file of the log. All fields but the immutable ones at the top are guarded by Log.mu.
type segment struct {
	seq  uint64
	key  uint64
	size int64 // of the file

	first, last         uint64 // live and written decrees; last = first-1 when there is none
	firstTerm, lastTerm uint64
	end                 int64  // written and synced bytes
	link                uint32 // chain value at end
	sealed              bool

	points  []point  // nil: not loaded
	file    vfs.File // nil: not open
	lastUse uint64
	refs    int
	dropped bool // no longer in the log: retire once refs is 0
}

func segmentName(seq uint64) string {
	return fmt.Sprintf("%016x%s", seq, segmentSuffix)
}

func parseSegmentName(name string) (seq uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(hex, 16, 64)
	return seq, err == nil && seq > 0
}

func (s *segment) info() sealedInfo {
	return sealedInfo{seq: s.seq, first: s.first, last: s.last, firstTerm: s.firstTerm, lastTerm: s.lastTerm,
		end: s.end, size: s.size, link: s.link}
}

func (s *segment) empty() bool { return s.last < s.first }

// pointFor returns the last point at or before index.
func pointFor(points []point, index uint64) (point, bool) {
	i := sort.Search(len(points), func(i int) bool { return points[i].index > index }) - 1
	if i < 0 {
		return point{}, false
	}
	return points[i], true
}

// find returns the segment that holds index, nil when none does. Log.mu is held.
func (l *Log) find(index uint64) *segment {
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].first > index }) - 1
	if i < 0 || l.segs[i].last < index {
		return nil
	}
	return l.segs[i]
}

// acquire opens the file of s if need be and keeps it until release. Log.mu is held, and dropped meanwhile.
func (l *Log) acquire(s *segment) error {
	l.useClock++
	s.lastUse = l.useClock
	s.refs++
	if s.file != nil {
		return nil
	}
	l.mu.Unlock()
	f, err := l.fs.Open(l.path(segmentName(s.seq)))
	l.mu.Lock()
	if err != nil {
		l.releaseLocked(s)
		if isNotExist(err) {
			return l.corrupt(s.seq, 0, s.first, KindSegmentMissing)
		}
		return fmt.Errorf("open plog segment %d: %w", s.seq, err)
	}
	if s.file != nil {
		l.mu.Unlock()
		_ = f.Close()
		l.mu.Lock()
		return nil
	}
	s.file = f
	l.limitOpen()
	return nil
}

// releaseLocked undoes acquire. Log.mu is held.
func (l *Log) releaseLocked(s *segment) {
	s.refs--
	switch {
	case s.refs > 0:
	case s.dropped:
		l.retire(s)
	case l.filesClosed && s.file != nil:
		_ = s.file.Close()
		s.file = nil
	}
}

// limitOpen closes the least recently used sealed segments above Options.MaxOpenSegments. Log.mu is held.
func (l *Log) limitOpen() {
	for {
		open, oldest := 0, (*segment)(nil)
		for _, s := range l.segs {
			if !s.sealed || s.file == nil && s.points == nil {
				continue
			}
			open++
			if s.refs == 0 && (oldest == nil || s.lastUse < oldest.lastUse) {
				oldest = s
			}
		}
		if open <= l.opts.MaxOpenSegments || oldest == nil {
			return
		}
		oldest.points = nil
		if oldest.file != nil {
			_ = oldest.file.Close()
			oldest.file = nil
		}
	}
}

// retire gives the file of a dropped segment nobody reads to the spares. Log.mu is held.
func (l *Log) retire(s *segment) {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	s.points = nil
	l.files.retire(segmentName(s.seq), s.size)
	if !l.opts.KeepExcess || l.files.isFrugal() {
		l.backgroundLocked(l.files.trim)
	}
}
