package plog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// Open opens the log in dir, and creates it if there is none. It reads the manifest and the active segment only.
// A torn tail is cut; damage to anything that was synced is an *ErrCorrupt. The folder must not be open elsewhere.
func Open(dir string, partition uint32, o Options) (*Log, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, partition: partition, fs: o.FS, opts: o, log: o.Logger, syncer: o.Syncer,
		files: newFiles(o.FS, dir, max(0, o.MaxSpares)), pend: &group{}, idle: &group{}, pendingCut: noCut, session: newSession()}
	l.cache.limit = o.CacheBytes
	l.metrics = o.Metrics.forLog(partition)
	if err := l.load(); err != nil {
		l.closeFiles()
		l.found(err)
		return nil, fmt.Errorf("open plog %s: %w", dir, err)
	}
	if l.syncer == nil {
		l.syncer, l.ownSyncer = newStartedSyncer(), true
	}
	l.metrics.open(l)
	return l, nil
}

func (l *Log) closeFiles() {
	l.files.close()
	for _, s := range l.segs {
		if s.file != nil {
			_ = s.file.Close()
		}
	}
}

func (l *Log) load() error {
	m, err := readManifest(l.fs, l.dir)
	switch {
	case isNotExist(err):
		if err := l.create(); err != nil {
			return err
		}
	case err != nil:
		return l.locate(err)
	default:
		// The process before may have died between a rename and its sync: what is trusted from here on must not be taken back.
		if err := dirsync.Sync(l.fs, l.dir); err != nil {
			return err
		}
		l.openBallast()
		return l.recover(m)
	}
	l.openBallast()
	return nil
}

// locate adds the partition to damage found where it is not known.
func (l *Log) locate(err error) error {
	if e, ok := err.(*ErrCorrupt); ok {
		return l.corrupt(e.Segment, e.Offset, e.Decree, e.Kind)
	}
	return err
}

// create starts a log in a folder that has none.
func (l *Log) create() error {
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := dirsync.Sync(l.fs, l.fs.PathDir(l.dir)); err != nil {
		return err
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	for _, name := range names {
		seq, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		h, ok, err := l.readHeader(name)
		if err != nil {
			return err
		}
		if ok && h.seq == seq {
			return l.corrupt(0, 0, 0, KindManifestMissing)
		}
		if err := l.fs.Remove(l.path(name)); err != nil {
			return fmt.Errorf("remove unused segment: %w", err)
		}
	}
	f, err := l.files.take(1, min(l.opts.SegmentBytes, firstSegmentBytes))
	if err != nil {
		return err
	}
	key := segmentKey(l.partition, 1)
	l.segs = []*segment{{seq: 1, key: key, size: f.size, file: f.file, first: 1, end: segmentHeaderLen, link: firstLink(key)}}
	l.done = position{seq: 1, off: segmentHeaderLen, link: firstLink(key)}
	l.tail, l.tailCap, l.headerDue = l.done, f.size, true
	l.id = newID()
	return l.install(l.describe(), mayDropBallast)
}

// readHeader reads the segment header of a file. ok: it is one, of some segment.
func (l *Log) readHeader(name string) (h segmentHeader, ok bool, err error) {
	f, err := l.fs.Open(l.path(name))
	if err != nil {
		return h, false, fmt.Errorf("open segment %s: %w", name, err)
	}
	defer f.Close()
	return readSegmentHeader(f)
}

func readSegmentHeader(f vfs.File) (h segmentHeader, ok bool, err error) {
	var b [segmentHeaderLen]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return h, false, fmt.Errorf("read segment header: %w", err)
	}
	if h, ok = parseSegmentHeader(b[:n]); !ok {
		if v := otherVersion(b[:n]); v != 0 {
			return h, false, unknownVersion(v, segmentName(binary.LittleEndian.Uint64(b[20:])), formatVersion, formatVersion)
		}
	}
	return h, ok, nil
}

// recover brings back the log that m describes.
func (l *Log) recover(m *manifest) error {
	if m.partition != l.partition {
		return l.corrupt(0, 12, 0, KindPartition)
	}
	l.generation, l.base, l.baseTerm = m.generation, m.base, m.baseTerm
	l.id, l.mark, l.reach = m.id, m.journal, m.reach
	renew, err := l.syncer.admit(m)
	if err != nil {
		return l.locate(err)
	}
	if renew || m.id == 0 {
		l.id = newID() // in the manifest before the journal has bytes of it
	}
	if err := l.inventory(m); err != nil {
		return err
	}
	for i := range m.segments {
		si := &m.segments[i]
		l.segs = append(l.segs, &segment{seq: si.seq, key: segmentKey(l.partition, si.seq), size: si.size, first: si.first,
			last: si.last, firstTerm: si.firstTerm, lastTerm: si.lastTerm, end: si.end, link: si.link, sealed: true})
	}
	if err := l.recoverActive(m); err != nil {
		return err
	}
	l.done.hs.Commit = max(l.done.hs.Commit, l.base)
	l.committed = min(l.done.hs.Commit, l.done.last)
	l.tail, l.tailCap = l.done, l.active().size
	l.lastIndex.Store(l.done.last)
	l.durableIndex.Store(l.done.last)
	l.files.taken = l.active().seq
	if m.cut != 0 {
		return l.settleCut(m, renew)
	}
	if m.journal == 0 || m.journal == l.syncer.journalID() && !renew {
		return nil
	}
	err = l.install(l.describe(), mayDropBallast)
	if errors.Is(err, ErrDiskFull) && !renew {
		return nil // to need a journal that was brought back, and is not written to, does no harm
	}
	return err
}

// settleCut ends a replacement that was announced in the manifest: it happened if the active segment holds a batch.
func (l *Log) settleCut(m *manifest, renew bool) error {
	if l.active().empty() {
		l.fixManifest = true
	} else {
		l.applyCut(m.cut, m.cutTerm)
	}
	cut := l.orphans
	l.orphans = nil
	err := l.install(l.describe(), mayDropBallast)
	if errors.Is(err, ErrDiskFull) && !renew {
		l.orphans = cut // the next manifest drops them
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range cut {
		l.files.retire(segmentName(s.seq), s.size)
	}
	return nil
}

// inventory checks that every segment the manifest names is there, and sorts the other files: spares are kept,
// leftovers of a crash removed.
func (l *Log) inventory(m *manifest) error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	named := make(map[uint64]bool, len(m.segments)+1)
	for i := range m.segments {
		named[m.segments[i].seq] = true
	}
	named[m.activeSeq] = true
	sort.Strings(names)
	for _, name := range names {
		if name == manifestTmpName || name == prepareTmpName {
			if err := l.fs.Remove(l.path(name)); err != nil {
				return fmt.Errorf("remove leftover: %w", err)
			}
		}
		if seq, ok := parseSegmentName(name); ok && !named[seq] {
			if err := l.takeSpare(m, name, seq); err != nil {
				return err
			}
		}
	}
	for i := range m.segments {
		s := &m.segments[i]
		st, err := l.fs.Stat(l.path(segmentName(s.seq)))
		switch {
		case isNotExist(err):
			return l.corrupt(s.seq, 0, s.first, KindSegmentMissing)
		case err != nil:
			return fmt.Errorf("stat segment %d: %w", s.seq, err)
		case st.Size() < s.end:
			return l.corrupt(s.seq, st.Size(), s.first, KindSegmentTruncated)
		}
	}
	return nil
}

// takeSpare keeps a file that the manifest does not name for reuse, unless it shows that the manifest is old.
func (l *Log) takeSpare(m *manifest, name string, seq uint64) error {
	if seq > m.activeSeq {
		h, ok, err := l.readHeader(name)
		if err != nil {
			return err
		}
		if ok && h.seq == seq && h.partition == l.partition && h.generation > m.generation {
			return l.corrupt(0, 0, h.first, KindManifestStale)
		}
	}
	st, err := l.fs.Stat(l.path(name))
	if err != nil {
		return fmt.Errorf("stat spare %s: %w", name, err)
	}
	if st.Size() >= l.opts.SegmentBytes && (l.opts.KeepExcess || len(l.files.spares) <= l.files.maxSpares) {
		l.files.retire(name, st.Size())
		return nil
	}
	if err := l.fs.Remove(l.path(name)); err != nil {
		return fmt.Errorf("remove spare %s: %w", name, err)
	}
	return nil
}

// recoverActive replays the active segment, cuts its torn tail, and makes the rest durable.
func (l *Log) recoverActive(m *manifest) error {
	name := segmentName(m.activeSeq)
	st, err := l.fs.Stat(l.path(name))
	if isNotExist(err) {
		return l.corrupt(m.activeSeq, 0, m.activeFirst, KindSegmentMissing)
	}
	if err != nil {
		return fmt.Errorf("stat active segment: %w", err)
	}
	if st.Size() < m.activeSize {
		return l.corrupt(m.activeSeq, st.Size(), m.activeFirst, KindSegmentTruncated)
	}
	f, err := l.fs.OpenReadWrite(l.path(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("open active segment: %w", err)
	}
	key := segmentKey(l.partition, m.activeSeq)
	s := &segment{seq: m.activeSeq, key: key, size: st.Size(), file: f, first: m.activeFirst, last: m.activeFirst - 1,
		end: segmentHeaderLen, link: firstLink(key)}
	l.segs = append(l.segs, s)
	l.done = position{seq: s.seq, off: s.end, link: s.link, hs: m.hs, last: m.base, lastTerm: m.baseTerm}
	if n := len(m.segments); n > 0 {
		l.done.last, l.done.lastTerm = m.segments[n-1].last, m.segments[n-1].lastTerm
	}
	r := replay{scanner: newScanner(f, l.partition, s.seq, st.Size(), s.first, 0), s: s, pos: l.done}
	if err := l.replay(&r, m); err != nil {
		return err
	}
	l.done = r.pos
	for i := len(s.points); i > 0 && int64(s.points[i-1].off) >= r.pos.off; i-- {
		s.points = s.points[:i-1]
	}
	clean := m.activeSynced >= r.pos.off
	if s.empty() && m.cut != 0 {
		s.first, s.last = l.done.last+1, l.done.last
	}
	l.headerDue = !r.headed || s.empty() && r.header.first != s.first
	if clean {
		return nil
	}
	return l.resync(&r)
}

// replay is the state of reading back the active segment.
type replay struct {
	*scanner
	s         *segment
	pos       position // after the last whole batch
	groupFrom int64    // where the last group begins: everything before was synced
	kind      Kind     // why it ended
	header    segmentHeader
	headed    bool // header is this segment's
}

// replay reads whole batches into r until the log ends, and tells a torn end from damage.
func (l *Log) replay(r *replay, m *manifest) error {
	h, ok, err := readSegmentHeader(r.f)
	if err != nil {
		return err
	}
	r.groupFrom = segmentHeaderLen
	if ok = ok && h.seq == r.s.seq && h.partition == l.partition; ok && h.generation > m.generation {
		return l.corrupt(0, 0, h.first, KindManifestStale)
	}
	if r.header, r.headed = h, ok; !ok {
		r.kind, r.off = KindSegmentHeader, 0
	} else if err := r.batches(); err != nil {
		return err
	}
	proof, err := r.proof(r.off)
	if err != nil {
		return err
	}
	if r.off < m.activeSynced || proof > 0 {
		return l.corrupt(r.s.seq, r.off, r.next, r.kind)
	}
	if r.pos.off < r.off || r.kind != KindFrame {
		l.log.Info("torn tail of private log cut", "partition", l.partition, "segment", r.s.seq, "offset", r.pos.off,
			"last", r.pos.last, "kind", r.kind)
	}
	return nil
}

// batches replays until the first frame that does not belong to the log.
func (r *replay) batches() error {
	var fr frame
	now := r.pos
	for {
		var err error
		if r.kind, err = r.scan(&fr); err != nil || r.kind != "" {
			return err
		}
		if fr.flags&flagSynced != 0 {
			r.groupFrom = fr.off
		}
		if fr.flags&flagHardState != 0 {
			now.hs = fr.hs
		}
		if fr.count > 0 {
			if fr.first == r.s.first {
				r.s.firstTerm = fr.term
			}
			now.last, now.lastTerm = fr.first+uint64(fr.count)-1, fr.term
			r.s.points = fr.points(r.s.points)
		}
		now.off, now.link = r.off, r.link
		if fr.flags&flagContinued == 0 {
			r.commit(now)
		}
	}
}

// commit takes the batch that ended at pos.
func (r *replay) commit(pos position) {
	r.pos = pos
	r.s.end, r.s.link = pos.off, pos.link
	if pos.last >= r.s.first {
		r.s.last, r.s.lastTerm = pos.last, pos.lastTerm
	}
}

// resync writes the last group again, and the header, which the first group is synced with, and syncs the segment: what an earlier
// process wrote may have been read from memory only, and a sync that failed then would not be reported again now.
func (l *Log) resync(r *replay) error {
	if r.headed {
		r.header.put(l.header[:])
		if _, err := r.f.WriteAt(l.header[:], 0); err != nil {
			return fmt.Errorf("write header of plog segment %d: %w", r.s.seq, err)
		}
	}
	for off := r.groupFrom; off < r.pos.off; {
		b, err := r.window(off, int(min(r.pos.off-off, scanBuffer)))
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return fmt.Errorf("read plog segment %d at %d: %w", r.s.seq, off, io.ErrUnexpectedEOF)
		}
		if _, err := r.f.WriteAt(b, off); err != nil {
			return fmt.Errorf("write plog segment %d at %d: %w", r.s.seq, off, err)
		}
		off += int64(len(b))
	}
	if err := r.f.SyncData(); err != nil {
		return fmt.Errorf("sync plog segment %d: %w", r.s.seq, err)
	}
	return nil
}

// describe returns the manifest of the durable state, all of which is synced in the segments (settle). ioMu is held, or the log is not
// shared yet.
func (l *Log) describe() *manifest {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.active()
	m := &manifest{partition: l.partition, base: l.base, baseTerm: l.baseTerm, hs: l.done.hs, activeSeq: a.seq,
		activeFirst: a.first, activeSize: a.size, activeSynced: a.end}
	m.hs.Commit = max(m.hs.Commit, l.base)
	if a.end == segmentHeaderLen {
		m.activeSynced = 0
	}
	for _, s := range l.segs[:len(l.segs)-1] {
		m.segments = append(m.segments, s.info())
	}
	return m
}

// seal moves the active segment of m to the sealed ones, if it holds anything.
func (l *Log) seal(m *manifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.active(); !a.empty() {
		m.segments = append(m.segments, a.info())
	}
}

// install makes m the manifest. On a full disk it gives up the ballast, then fails with ErrDiskFull and changes
// nothing; any other failure makes the log dead. ioMu is held.
func (l *Log) install(m *manifest, ballast ballastUse) error {
	if err := l.Failed(); err != nil {
		return err
	}
	if len(m.segments) > maxSegments {
		return fmt.Errorf("%w: %d segments", ErrDiskFull, len(m.segments))
	}
	m.generation, m.id, m.journal, m.reach = l.generation+1, l.id, l.syncer.journalID(), l.syncer.journalReach()
	if l.ended {
		m.journal, m.reach = 0, Reach{}
	}
	torn, err := writeManifest(l.fs, l.dir, m)
	if err != nil && !torn && isDiskFull(err) && ballast == mayDropBallast && l.dropBallast() {
		torn, err = writeManifest(l.fs, l.dir, m)
	}
	if err != nil && !torn && isDiskFull(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(err)
	}
	l.generation, l.mark, l.reach, l.fixManifest = m.generation, m.journal, m.reach, false
	for _, s := range l.orphans {
		l.dropLocked(s)
	}
	l.orphans = nil
	return nil
}
