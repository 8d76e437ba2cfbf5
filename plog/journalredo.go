package plog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxRedoFiles bounds the segments that are open at the same time.
const maxRedoFiles = 256

// redo writes what a journal holds to the segments it belongs to and syncs them. Every byte of a segment that was acknowledged is
// written once, and its number is never used for another segment: doing it again changes nothing.
type redo struct {
	fs     vfs.FS
	logDir func(uint32) string
	any    bool // what is not there is passed over
	logs   map[uint32]*redoLog
	files  map[redoFile]vfs.File
	report JournalReport
	away   map[uint64]*ErrUnreachable // by log id
}

// redoLog is the log that is in a partition's folder now.
type redoLog struct {
	dir     string
	id      uint64 // 0: none
	seqs    map[uint64]bool
	written bool
	away    *ErrUnreachable
}

type redoFile struct {
	partition uint32
	seq       uint64
}

func (j *Journal) redo(jf *journalFile) (JournalReport, error) {
	r := &redo{fs: j.opts.FS, logDir: j.opts.LogDir, any: j.any, logs: map[uint32]*redoLog{}, files: map[redoFile]vfs.File{},
		away: map[uint64]*ErrUnreachable{}}
	j.away = r.away
	for i := range jf.areas {
		r.report.Blocks += int(jf.blocks[i])
		_, err := jf.scan(i, r.entry)
		if err == nil {
			err = r.flush()
		}
		if err != nil {
			r.closeFiles()
			return r.report, err
		}
	}
	for _, l := range r.logs {
		if l.written {
			r.report.Logs++
		}
	}
	return r.report, nil
}

func (r *redo) entry(e blockEntry) error {
	l := r.log(e.partition)
	if l.away != nil {
		r.away[e.log] = l.away
	}
	if l.id != e.log || !l.seqs[e.seq] || e.off < segmentHeaderLen {
		r.report.Skipped++
		return nil
	}
	f, err := r.file(l, redoFile{e.partition, e.seq})
	if f == nil || err != nil {
		return err
	}
	if _, err := f.WriteAt(e.bytes, e.off); err != nil {
		return fmt.Errorf("write plog segment %d of partition %d at %d: %w", e.seq, e.partition, e.off, err)
	}
	l.written = true
	r.report.Entries++
	r.report.Bytes += int64(len(e.bytes))
	return nil
}

// log finds what log a partition has now. One whose manifest is damaged is refused when it is opened, and has none here. One that cannot be
// looked at, or is not in its place, may be there later: the journal must not forget its batches.
func (r *redo) log(partition uint32) *redoLog {
	if l := r.logs[partition]; l != nil {
		return l
	}
	l := &redoLog{dir: r.logDir(partition), seqs: map[uint64]bool{}}
	r.logs[partition] = l
	// The manifest that decides must not be taken back by a crash.
	err := syncDir(r.fs, l.dir)
	if err != nil {
		r.without(l, partition, err)
		return l
	}
	m, err := readManifest(r.fs, l.dir)
	var damage *ErrCorrupt
	switch {
	case errors.As(err, &damage), isNotExist(err), err == nil && m.partition != partition:
		return l
	case err != nil:
		r.without(l, partition, err)
		return l
	}
	l.id = m.id
	l.seqs[m.activeSeq] = true
	for i := range m.segments {
		l.seqs[m.segments[i].seq] = true
	}
	return l
}

// without goes on without a log, whose batches the journal keeps unless their loss is accepted.
func (r *redo) without(l *redoLog, partition uint32, err error) {
	if r.any {
		return
	}
	l.away = &ErrUnreachable{Partition: partition, Dir: l.dir, Err: err}
	if r.report.Away == nil {
		r.report.Away = l.away
	}
}

// file opens a segment; nil when it is missing, of which Open tells.
func (r *redo) file(l *redoLog, of redoFile) (vfs.File, error) {
	if f := r.files[of]; f != nil {
		return f, nil
	}
	if len(r.files) >= maxRedoFiles {
		if err := r.flush(); err != nil {
			return nil, err
		}
	}
	f, err := r.fs.OpenReadWrite(r.fs.PathJoin(l.dir, segmentName(of.seq)), vfs.WriteCategoryUnspecified)
	if isNotExist(err) {
		r.report.Skipped++
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open plog segment %d of partition %d: %w", of.seq, of.partition, err)
	}
	r.files[of] = f
	return f, nil
}

// flush syncs and closes what was written.
func (r *redo) flush() error {
	for of, f := range r.files {
		if err := f.SyncData(); err != nil {
			return fmt.Errorf("sync plog segment %d of partition %d: %w", of.seq, of.partition, err)
		}
		_ = f.Close()
		delete(r.files, of)
	}
	return nil
}

func (r *redo) closeFiles() {
	for _, f := range r.files {
		_ = f.Close()
	}
}
