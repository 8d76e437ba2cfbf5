package plog

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// JournalReport is what OpenJournal brought back.
type JournalReport struct {
	Blocks  int           // valid ones
	Entries int           // parts of them that were written to segments
	Skipped int           // parts of logs, or of segments, that are there no more
	Bytes   int64         // written to segments
	Logs    int           // that were written to
	Damage  *ErrCorrupt   // accepted damage
	Took    time.Duration // of all this
	// Away is the first log whose folder is missing, or whose manifest or segments cannot be read, written, or are not what was written: the
	// journal stays as it is for it, and is not used until a later start finds the log.
	Away *ErrUnreachable
	// Forgotten is how many logs the journal gave batches up of: another log is in their place, or their loss was accepted. Should one of them come back
	// after all, it is refused.
	Forgotten int
}

// OpenJournal opens the journal in dir, and makes it if there is none. What an earlier process made durable by it alone is written
// to the segments and synced first, so that the logs can be opened when it returns; doing so again after a crash does no harm. A damaged journal is an
// *ErrCorrupt. One with batches of a log that is away stays as it is, and is not used. Without space for its file the journal is opened all the same and not used.
func OpenJournal(dir string, o JournalOptions) (*Journal, JournalReport, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, JournalReport{}, err
	}
	j := &Journal{opts: o, dir: dir, off: o.Bytes < 0, any: o.AcceptLoss}
	j.cond.L = &j.mu
	began := time.Now()
	report, err := j.open()
	if err != nil {
		j.closeFiles()
		return nil, report, fmt.Errorf("open plog journal %s: %w", dir, err)
	}
	report.Took = time.Since(began)
	return j, report, nil
}

func (j *Journal) path(name string) string { return j.opts.FS.PathJoin(j.dir, name) }

func (j *Journal) open() (report JournalReport, err error) {
	old, err := openJournalFile(j.opts.FS, j.path(journalName), j.opts.AcceptLoss)
	var damage *ErrCorrupt
	switch {
	case isNotExist(err):
		return report, j.begin()
	case errors.As(err, &damage) && j.opts.AcceptLoss:
	case err != nil:
		return report, err
	}
	defer old.close()
	// What is trusted from here on must not be taken back: the process before may have died before it synced the folder.
	if err := dirsync.Sync(j.opts.FS, j.dir); err != nil {
		return report, err
	}
	if err := j.opts.FS.Remove(j.path(journalTmpName)); err != nil && !isNotExist(err) && !isDiskFull(err) {
		return report, fmt.Errorf("remove leftover: %w", err)
	}
	if damage == nil {
		damage = old.damage
	}
	if damage == nil {
		damage = j.outdated(old)
	}
	if err := j.loadForgotten(old.id); errors.As(err, &damage) {
		j.opts.Logger.Warn("what the journal gave up is not known", "file", damage.File)
	} else if err != nil {
		return report, err
	}
	if damage != nil && !j.opts.AcceptLoss {
		j.opts.Metrics.corruption(damage.Kind)
		return report, damage
	}
	report, lost, err := j.redo(old)
	if err != nil {
		return report, err
	}
	j.id, j.generation, report.Damage = old.id, old.highest(), damage
	if damage != nil {
		return report, j.replace()
	}
	if err := j.forget(lost); isDiskFull(err) {
		return report, j.without(err)
	} else if err != nil {
		return report, err
	}
	if report.Away != nil {
		j.off = true
		j.opts.Logger.Error("the journal keeps what it has of logs that are away, each private log syncs itself: put them back, mend them or drop the replicas", "dir", j.dir,
			"logs", len(j.away), "first", report.Away.Dir, "error", report.Away)
		return report, nil
	}
	if !j.off && old.areaBytes != j.areaSize() {
		err := j.make()
		if !isDiskFull(err) {
			return report, err
		}
		j.opts.Logger.Warn("no space for a journal of the wanted size: the one there is goes on", "dir", j.dir, "error", err)
	}
	err = j.reuse(old.areaBytes)
	if err != nil && j.opts.AcceptLoss { // nothing is lost: everything has been brought back
		j.opts.Logger.Warn("the journal cannot be written: another one takes its place", "dir", j.dir, "error", err)
		j.closeFiles()
		return report, j.replace()
	}
	return report, err
}

// replace puts another journal, with another id, in the place of one whose damage was accepted: a log that still names the damaged one when it comes
// back some day can lack batches.
func (j *Journal) replace() error {
	j.id = 0
	if err := j.keepDamaged(); err != nil {
		return err
	}
	err := j.make()
	if !j.off && !isDiskFull(err) {
		return err
	}
	name := j.path(journalName)
	if err := j.opts.FS.Remove(name); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := dirsync.Sync(j.opts.FS, j.dir); err != nil || j.off {
		return err
	}
	return j.without(err)
}

// keepDamaged gives the damaged file a second name, before another one takes its first, or else another name.
func (j *Journal) keepDamaged() error {
	name := j.path(journalName + ".damaged")
	if err := j.opts.FS.Remove(name); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	err := j.opts.FS.Link(j.path(journalName), name)
	if err != nil { // not every file system has links; no journal at all is as much of a loss
		err = j.opts.FS.Rename(j.path(journalName), name)
	}
	if err != nil {
		return fmt.Errorf("keep the damaged journal: %w", err)
	}
	j.opts.Logger.Warn("damaged journal kept", "file", name)
	return nil
}

// begin makes the first journal of a folder, unless it is not wanted or has no room.
func (j *Journal) begin() error {
	if j.off {
		return nil
	}
	fs := j.opts.FS
	if err := fs.MkdirAll(j.dir, 0o755); err != nil {
		if isDiskFull(err) {
			return j.without(err)
		}
		return fmt.Errorf("create folder: %w", err)
	}
	if err := dirsync.Sync(fs, fs.PathDir(j.dir)); err != nil {
		return err
	}
	err := j.make()
	if isDiskFull(err) {
		return j.without(err)
	}
	return err
}

func (j *Journal) without(err error) error {
	j.off = true
	j.opts.Logger.Warn("no space for a journal: each private log syncs itself", "dir", j.dir, "error", err)
	return nil
}

func (j *Journal) areaSize() int64 {
	return j.opts.Bytes / journalAreas &^ (journalAlign - 1)
}

// make writes a new empty journal over its whole length and puts it in the place of the old one, if there is any.
func (j *Journal) make() error {
	if j.off {
		return nil
	}
	fs, size := j.opts.FS, j.areaSize()
	if j.id == 0 {
		j.id = newID()
	}
	tmp := j.path(journalTmpName)
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	err = zero(f, 0, journalAreas*size)
	j.areaBytes = size
	for i := range journalAreas {
		if err == nil {
			err = j.writeHeader(f, i, j.generation+uint64(i)+1)
		}
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		_ = fs.Remove(tmp)
		return fmt.Errorf("fill journal: %w", err)
	}
	if err := fs.Rename(tmp, j.path(journalName)); err != nil {
		return fmt.Errorf("name journal: %w", err)
	}
	if err := dirsync.Sync(fs, j.dir); isDiskFull(err) {
		return j.without(err) // which of the two is there from now on will be seen
	} else if err != nil {
		return err
	}
	return j.start(size)
}

// reuse empties the journal that is there, durably.
func (j *Journal) reuse(areaBytes int64) error {
	if err := j.openFiles(areaBytes); err != nil {
		return err
	}
	for i := range journalAreas {
		if err := j.writeHeader(j.marks, i, j.generation+uint64(i)+1); isDiskFull(err) {
			return j.without(err)
		} else if err != nil {
			return err
		}
	}
	j.startAreas()
	return nil
}

func (j *Journal) start(areaBytes int64) error {
	if err := j.openFiles(areaBytes); err != nil {
		return err
	}
	j.startAreas()
	return nil
}

func (j *Journal) startAreas() {
	j.begun = j.generation + 1
	for i := range j.areas {
		j.generation++
		j.areas[i] = area{generation: j.generation, off: int64(i)*j.areaBytes + journalAlign}
	}
	j.reach = Reach{Generation: j.generation}
}

func (j *Journal) openFiles(areaBytes int64) (err error) {
	j.areaBytes = areaBytes
	if j.file, err = j.opts.FS.OpenReadWrite(j.path(journalName), vfs.WriteCategoryUnspecified); err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	if j.marks, err = j.opts.FS.OpenReadWrite(j.path(journalName), vfs.WriteCategoryUnspecified); err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	return nil
}

func (j *Journal) closeFiles() {
	for _, f := range []vfs.File{j.file, j.marks} {
		if f != nil {
			_ = f.Close()
		}
	}
	j.file, j.marks = nil, nil
}

// journalFile is a journal being read.
type journalFile struct {
	f         vfs.File
	name      string
	any       bool // what cannot be read is passed over, as damage
	id        uint64
	areaBytes int64
	areas     [journalAreas]journalHeader
	ends      [journalAreas]int64 // of the valid blocks
	blocks    [journalAreas]uint64
	was       [journalAreas]Reach // what the blocks say of the area used before
	damage    *ErrCorrupt         // the first place
	buf       []byte
}

func (jf *journalFile) close() {
	if jf != nil && jf.f != nil {
		_ = jf.f.Close()
	}
}

// openJournalFile checks the whole file. An error is what cannot be read at all, or, if loss is accepted, what cannot be opened; damage is noted. The file
// is never nil when the error is an *ErrCorrupt.
func openJournalFile(fsys vfs.FS, name string, acceptLoss bool) (*journalFile, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	jf := &journalFile{f: f, name: name, any: acceptLoss}
	if err := jf.check(); err != nil {
		var damage *ErrCorrupt
		if !errors.As(err, &damage) {
			jf.close()
			return nil, err
		}
		return jf, err
	}
	return jf, nil
}

func (jf *journalFile) corrupt(off int64) *ErrCorrupt {
	return &ErrCorrupt{Kind: KindJournal, File: jf.name, Offset: off}
}

func (jf *journalFile) check() error {
	st, err := jf.f.Stat()
	if err != nil {
		return fmt.Errorf("stat journal: %w", err)
	}
	jf.areaBytes = st.Size() / journalAreas
	if st.Size() > 2*MaxJournalBytes || jf.areaBytes%journalAlign != 0 || jf.areaBytes < 2*journalAlign || st.Size()%journalAreas != 0 {
		return jf.corrupt(st.Size())
	}
	for i := range jf.areas {
		if err := jf.checkArea(i); err != nil {
			return err
		}
	}
	// The blocks behind the last one of an area stand in the other area.
	for i := range jf.areas {
		was, other := jf.was[i], (i+1)%journalAreas
		if jf.blocks[i] > 0 && was.Generation != 0 && was.Generation == jf.areas[other].generation && was.End > jf.ends[other] {
			jf.note(jf.ends[other])
		}
	}
	return nil
}

func (jf *journalFile) checkArea(i int) error {
	at := int64(i) * jf.areaBytes
	b, err := jf.read(at, journalHeaderLen)
	if err != nil {
		return jf.unread(at, err)
	}
	h, version, ok := parseJournalHeader(b)
	if ok && version != formatVersion {
		return unknownVersion(version, jf.name, formatVersion, formatVersion)
	}
	if !ok || h.area != uint32(i) || h.areaBytes != jf.areaBytes || h.id == 0 || i > 0 && jf.id != 0 && h.id != jf.id {
		jf.note(at)
		return nil
	}
	jf.areas[i], jf.id = h, h.id
	jf.ends[i], err = jf.scan(i, func(blockEntry) error { return nil })
	if err != nil {
		return err
	}
	for off := jf.ends[i] + journalAlign; off < at+jf.areaBytes; off += journalAlign {
		b, err := jf.blockAt(i, off)
		if err != nil {
			if err := jf.unread(off, err); err != nil {
				return err
			}
			continue
		}
		if blockValid(b, blockPlace{id: h.id, generation: h.generation, off: off}) {
			jf.note(jf.ends[i])
			break
		}
	}
	return nil
}

func (jf *journalFile) note(off int64) {
	if jf.damage == nil {
		jf.damage = jf.corrupt(off)
	}
}

// unread notes that a place cannot be read, which is an error unless loss is accepted.
func (jf *journalFile) unread(off int64, err error) error {
	if !jf.any {
		return err
	}
	jf.note(off)
	return nil
}

// scan visits the entries of the valid blocks of area i and returns where they end.
func (jf *journalFile) scan(i int, visit func(blockEntry) error) (end int64, err error) {
	h := jf.areas[i]
	off := int64(i)*jf.areaBytes + journalAlign
	for number := uint64(0); h.id != 0; number++ {
		b, err := jf.blockAt(i, off)
		if err != nil {
			return off, jf.unread(off, err)
		}
		was, ok, err := parseBlock(b, blockPlace{id: h.id, generation: h.generation, number: number, off: off}, visit)
		if err != nil || !ok {
			return off, err
		}
		jf.blocks[i], jf.was[i] = number+1, was
		off += int64(padded(len(b)))
	}
	return off, nil
}

// blockAt returns the bytes of what looks like a block at off of area i, valid until the next read; none when nothing does.
func (jf *journalFile) blockAt(i int, off int64) ([]byte, error) {
	end := int64(i+1) * jf.areaBytes
	if off+journalAlign > end {
		return nil, nil
	}
	b, err := jf.read(off, journalAlign)
	if err != nil {
		return nil, err
	}
	n := blockLen(b)
	if n == 0 || off+int64(n) > end {
		return nil, nil
	}
	if n <= len(b) {
		return b[:n], nil
	}
	return jf.read(off, n)
}

func (jf *journalFile) read(off int64, n int) ([]byte, error) {
	if cap(jf.buf) < n {
		jf.buf = make([]byte, max(n, 64<<10))
	}
	b := jf.buf[:n]
	if m, err := jf.f.ReadAt(b, off); err != nil && (!errors.Is(err, io.EOF) || m < n) {
		return nil, fmt.Errorf("read journal at %d: %w", off, err)
	}
	return b, nil
}
