package plog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// maxRedoFiles bounds the segments that are open at the same time.
const maxRedoFiles = 256

// redo writes what a journal holds to the segments it belongs to and syncs them. Every byte of a segment that was acknowledged is
// written once, and its number is never used for another segment: doing it again changes nothing.
type redo struct {
	fs        vfs.FS
	logDir    func(uint32) string
	of        *journalFile
	journal   uint64 // its id
	any       bool   // what is not there is passed over
	letGo     []uint32
	forgotten forgotten // before
	logs      map[uint32]*redoLog
	files     map[redoFile]redoSegment
	report    JournalReport
	away      map[uint64]*ErrUnreachable // by log id
	lost      []lostLog
}

// lostLog is a log whose batches are given up.
type lostLog struct {
	id        uint64
	partition uint32
}

// redoLog is the log that is in a partition's folder now.
type redoLog struct {
	dir     string
	m       *manifest
	seqs    map[uint64]bool
	named   bool // the journal has entries of it
	written bool
	err     *ErrUnreachable // it cannot be brought back
}

type redoFile struct {
	partition uint32
	seq       uint64
}

type redoSegment struct {
	vfs.File
	size int64
}

// redo brings jf back and returns the logs whose batches are given up.
func (j *Journal) redo(jf *journalFile) (JournalReport, []lostLog, error) {
	r := &redo{fs: j.opts.FS, logDir: j.opts.LogDir, of: jf, journal: jf.id, any: j.any, letGo: j.opts.LetGo, forgotten: j.forgotten,
		logs: map[uint32]*redoLog{}, files: map[redoFile]redoSegment{}, away: map[uint64]*ErrUnreachable{}}
	j.away = r.away
	for i := range jf.areas {
		r.report.Blocks += int(jf.blocks[i])
		if _, err := jf.scan(i, r.entry); err != nil {
			r.closeFiles()
			return r.report, nil, err
		}
		r.flush()
	}
	for _, partition := range r.letGo {
		if err := r.part(partition); err != nil {
			return r.report, nil, err
		}
	}
	for _, l := range r.logs {
		if l.written {
			r.report.Logs++
		}
	}
	r.report.Forgotten = len(r.lost)
	return r.report, r.lost, nil
}

func (r *redo) entry(e blockEntry) error {
	if r.forgotten.has(e.log) {
		r.report.Skipped++
		return nil
	}
	l := r.log(e.partition)
	switch {
	case l.err != nil:
		r.miss(l, e.log)
	case l.m.id != e.log && r.refuses(l.m):
		// It was put here by mistake, or too early: it is no successor of the one whose batches these are.
		r.without(l, e.partition, &ErrCorrupt{Kind: KindJournalMissing, Offset: manifestJournal})
		r.miss(l, e.log)
	case l.m.id != e.log:
		r.lose(e.log, e.partition)
	case l.m.journal != r.journal || !l.seqs[e.seq] || e.off < segmentHeaderLen:
		// It needs nothing of this journal: it was closed, or went on with another one. Or it needs this no more.
		l.named = true
	default:
		l.named = true
		if err := r.write(l, e); err != nil {
			r.without(l, e.partition, err)
			r.miss(l, e.log)
			break
		}
		l.written = true
		r.report.Entries++
		r.report.Bytes += int64(len(e.bytes))
		return nil
	}
	r.report.Skipped++
	return nil
}

// refuses says whether the log that m describes lacks batches, whatever this journal has.
func (r *redo) refuses(m *manifest) bool {
	return m.journal != 0 && (m.journal != r.journal || r.forgotten.has(m.id))
}

// miss keeps the batches of a log that cannot be brought back, unless their loss is accepted.
func (r *redo) miss(l *redoLog, id uint64) {
	if r.any || slices.Contains(r.letGo, l.err.Partition) {
		r.lose(id, l.err.Partition)
		return
	}
	r.away[id] = l.err
	if r.report.Away == nil {
		r.report.Away = l.err
	}
}

// lose gives the batches of a log up.
func (r *redo) lose(id uint64, partition uint32) {
	if l := (lostLog{id, partition}); !slices.Contains(r.lost, l) {
		r.lost = append(r.lost, l)
	}
}

// part makes the log of a partition whole without the journal, which need not wait for it from then on.
func (r *redo) part(partition uint32) error {
	l := r.log(partition)
	if l.err != nil || l.m.journal != r.journal || r.forgotten.has(l.m.id) {
		return nil
	}
	l.m.generation, l.m.journal, l.m.reach = l.m.generation+1, 0, Reach{}
	if _, err := writeManifest(r.fs, l.dir, l.m); err != nil {
		return fmt.Errorf("let the log of partition %d go: %w", partition, err)
	}
	if l.named {
		r.lose(l.m.id, partition)
	}
	return nil
}

// log finds what log a partition has now. One that cannot be looked at, whose manifest is not what was written or another partition's,
// or that is not in its place, may be there later: the journal must not forget its batches.
func (r *redo) log(partition uint32) *redoLog {
	if l := r.logs[partition]; l != nil {
		return l
	}
	l := &redoLog{dir: r.logDir(partition), seqs: map[uint64]bool{}}
	r.logs[partition] = l
	// The manifest that decides must not be taken back by a crash.
	err := dirsync.Sync(r.fs, l.dir)
	if err == nil {
		l.m, err = readManifest(r.fs, l.dir)
	}
	if err == nil && l.m.partition != partition {
		err = &ErrCorrupt{Offset: 12, Kind: KindPartition}
	}
	if err == nil && !r.any {
		if e := r.of.outdated(l.m); e != nil { // its manifest could not be read before
			err = e
		}
	}
	if err != nil {
		r.without(l, partition, err)
		return l
	}
	l.seqs[l.m.activeSeq] = true
	for i := range l.m.segments {
		l.seqs[l.m.segments[i].seq] = true
	}
	return l
}

// without goes on without a log.
func (r *redo) without(l *redoLog, partition uint32, err error) {
	var damage *ErrCorrupt
	if errors.As(err, &damage) {
		damage.Partition = partition
	}
	l.err = &ErrUnreachable{Partition: partition, Dir: l.dir, Err: err}
}

// write puts an entry into its segment.
func (r *redo) write(l *redoLog, e blockEntry) error {
	f, err := r.segment(l, redoFile{e.partition, e.seq})
	if err != nil {
		return err
	}
	if e.off+int64(len(e.bytes)) > f.size {
		return &ErrCorrupt{Segment: e.seq, Offset: f.size, Kind: KindSegmentTruncated}
	}
	if _, err := f.WriteAt(e.bytes, e.off); err != nil {
		return fmt.Errorf("write plog segment %d at %d: %w", e.seq, e.off, err)
	}
	return nil
}

// segment opens a segment, or finds it open.
func (r *redo) segment(l *redoLog, of redoFile) (redoSegment, error) {
	if f, open := r.files[of]; open {
		return f, nil
	}
	if len(r.files) >= maxRedoFiles {
		if r.flush(); l.err != nil {
			return redoSegment{}, l.err.Err
		}
	}
	f, err := r.fs.OpenReadWrite(r.fs.PathJoin(l.dir, segmentName(of.seq)), vfs.WriteCategoryUnspecified)
	if isNotExist(err) {
		return redoSegment{}, &ErrCorrupt{Segment: of.seq, Kind: KindSegmentMissing}
	}
	if err != nil {
		return redoSegment{}, fmt.Errorf("open plog segment %d: %w", of.seq, err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return redoSegment{}, fmt.Errorf("stat plog segment %d: %w", of.seq, err)
	}
	r.files[of] = redoSegment{f, st.Size()}
	return r.files[of], nil
}

// flush syncs and closes what was written. A log whose segment cannot be synced is written again at a later start.
func (r *redo) flush() {
	for of, f := range r.files {
		if err := f.SyncData(); err != nil {
			l := r.logs[of.partition]
			r.without(l, of.partition, fmt.Errorf("sync plog segment %d: %w", of.seq, err))
			r.miss(l, l.m.id)
		}
	}
	r.closeFiles()
}

func (r *redo) closeFiles() {
	for _, f := range r.files {
		_ = f.Close()
	}
	clear(r.files)
}
