package plog

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// zeroChunk is how much of a new segment is written and synced at a time, so that preparing one does not
// occupy the disk for long while appends wait for it.
const zeroChunk = 1 << 20

// zeroPiece is how much of it one call writes. Linux keeps what one call wrote in folios as large as the call, and each later sync of
// some bytes looks at the whole folio they are in: with 16 MiB a synced append of 100 B takes 4 % longer than with 64 KiB.
const zeroPiece = 64 << 10

// spare is a released segment file, fully written once.
type spare struct {
	name string
	size int64
}

// files makes the segment files of one log: the next one is prepared ahead, from a spare when there is one.
// Its lock is a leaf, never held during a file operation.
type files struct {
	fs        vfs.FS
	dir       string
	maxSpares int

	mu       sync.Mutex
	cond     sync.Cond
	frugal   bool // space is short: nothing is kept or prepared
	busy     bool // one operation at a time changes files
	spares   []spare
	next     *segmentFile // prepared for use
	nextSeq  uint64       // sequence number of next
	taken    uint64       // highest sequence number in use: its file must not be made again
	recycled uint64
}

// segmentFile is a file ready to be written in place.
type segmentFile struct {
	file vfs.File
	size int64
}

func newFiles(fsys vfs.FS, dir string, maxSpares int) *files {
	p := &files{fs: fsys, dir: dir, maxSpares: maxSpares}
	p.cond.L = &p.mu
	return p
}

func (p *files) path(name string) string { return p.fs.PathJoin(p.dir, name) }

// retire adds a file that no manifest names any more.
func (p *files) retire(name string, size int64) {
	p.mu.Lock()
	p.spares = append(p.spares, spare{name, size})
	p.mu.Unlock()
}

// begin waits until no other operation changes files, and keeps others out until end.
func (p *files) begin() {
	p.mu.Lock()
	for p.busy {
		p.cond.Wait()
	}
	p.busy = true
	p.mu.Unlock()
}

func (p *files) end() {
	p.mu.Lock()
	p.busy = false
	p.cond.Signal()
	p.mu.Unlock()
}

// setFrugal keeps and prepares nothing from now on, or as usual again; what is there already goes with the next trim.
func (p *files) setFrugal(on bool) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = p.frugal != on
	p.frugal = on
	return changed
}

func (p *files) isFrugal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frugal
}

// trim deletes spares above the limit, and the prepared file while there is to be none.
func (p *files) trim() {
	p.unprepare()
	for p.trimOne() {
	}
}

// unprepare makes the prepared file a spare while space is short.
func (p *files) unprepare() {
	p.begin()
	defer p.end()
	p.mu.Lock()
	f, seq := p.next, p.nextSeq
	if f == nil || !p.frugal {
		p.mu.Unlock()
		return
	}
	p.next = nil
	p.mu.Unlock()
	_ = f.file.Close()
	p.retire(segmentName(seq), f.size)
}

func (p *files) trimOne() (more bool) {
	_, more = p.removeSpare()
	return more
}

// removeSpare deletes one file above the limit and returns its size; false when there is none, or it could not be deleted.
func (p *files) removeSpare() (size int64, done bool) {
	p.begin()
	defer p.end()
	p.mu.Lock()
	if len(p.spares) == 0 || !p.frugal && len(p.spares) <= p.maxSpares {
		p.mu.Unlock()
		return 0, false
	}
	s := p.spares[0]
	p.spares = append(p.spares[:0], p.spares[1:]...)
	p.mu.Unlock()
	err := p.fs.Remove(p.path(s.name))
	return s.size, err == nil || isNotExist(err)
}

// excess is the size of the spares above the limit.
func (p *files) excess() (bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spares[:max(0, len(p.spares)-max(0, p.maxSpares))] {
		bytes += s.size
	}
	return bytes
}

// prepare makes the file of segment seq ahead of its use.
func (p *files) prepare(seq uint64, size int64) {
	p.begin()
	defer p.end()
	p.mu.Lock()
	unwanted := p.frugal || p.next != nil || seq <= p.taken
	p.mu.Unlock()
	if unwanted {
		return
	}
	f, err := p.make(seq, size)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.next, p.nextSeq = f, seq
	p.mu.Unlock()
}

// take returns the file of segment seq with at least size bytes, made now unless it was prepared.
func (p *files) take(seq uint64, size int64) (*segmentFile, error) {
	p.begin()
	defer p.end()
	p.mu.Lock()
	f, prepared := p.next, p.nextSeq
	p.next, p.taken = nil, seq
	p.mu.Unlock()
	if f != nil && prepared != seq {
		_ = f.file.Close()
		p.retire(segmentName(prepared), f.size)
		f = nil
	}
	if f == nil {
		return p.make(seq, size)
	}
	if f.size < size {
		if err := zero(f.file, f.size, size); err != nil {
			_ = f.file.Close()
			p.retire(segmentName(seq), f.size)
			return nil, fmt.Errorf("extend plog segment %d: %w", seq, err)
		}
		f.size = size
	}
	return f, nil
}

// giveBack keeps a file that was not used because of err for the next take of the same sequence number. When the log is dead there
// is none, and the manifest may name the file: then it must stay.
func (p *files) giveBack(seq uint64, f *segmentFile, err error) {
	if !errors.Is(err, ErrDiskFull) || errors.Is(err, ErrFailed) {
		_ = f.file.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.nextSeq = f, seq
}

// stats returns the number of spares, their size, and how many segments were made from one.
func (p *files) stats() (spares int, bytes int64, recycled uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spares {
		bytes += s.size
	}
	spares = len(p.spares)
	if p.next != nil {
		spares++
		bytes += p.next.size
	}
	return spares, bytes, p.recycled
}

func (p *files) close() {
	p.begin()
	defer p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != nil {
		_ = p.next.file.Close()
		p.next = nil
	}
}

// make creates the file of segment seq: written over its whole length and synced under its durable name.
func (p *files) make(seq uint64, size int64) (*segmentFile, error) {
	if f, err := p.recycle(seq, size); f != nil || err != nil {
		return f, err
	}
	tmp := p.path(prepareTmpName)
	f, err := p.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create plog segment %d: %w", seq, err)
	}
	if err := zero(f, 0, size); err != nil {
		_ = f.Close()
		_ = p.fs.Remove(tmp)
		return nil, fmt.Errorf("fill plog segment %d: %w", seq, err)
	}
	if err := p.adopt(tmp, seq); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &segmentFile{file: f, size: size}, nil
}

// recycle makes the file of segment seq from a spare; nil when there is none large enough.
func (p *files) recycle(seq uint64, size int64) (*segmentFile, error) {
	p.mu.Lock()
	at := -1
	for i, s := range p.spares {
		if s.size >= size {
			at = i
		}
	}
	if at < 0 {
		p.mu.Unlock()
		return nil, nil
	}
	s := p.spares[at]
	p.spares = append(p.spares[:at], p.spares[at+1:]...)
	p.recycled++
	p.mu.Unlock()
	name := segmentName(seq)
	if s.name != name {
		if err := p.adopt(p.path(s.name), seq); err != nil {
			return nil, err
		}
	}
	f, err := p.fs.OpenReadWrite(p.path(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open recycled plog segment %d: %w", seq, err)
	}
	return &segmentFile{file: f, size: s.size}, nil
}

// adopt gives the file at path the durable name of segment seq. A spare that has this name is replaced.
func (p *files) adopt(path string, seq uint64) error {
	p.mu.Lock()
	p.spares = slices.DeleteFunc(p.spares, func(s spare) bool { return s.name == segmentName(seq) })
	p.mu.Unlock()
	if err := p.fs.Rename(path, p.path(segmentName(seq))); err != nil {
		return fmt.Errorf("name plog segment %d: %w", seq, err)
	}
	return dirsync.Sync(p.fs, p.dir)
}

// zero allocates and writes f from byte from to byte to, and syncs it, so that later writes there change no
// metadata.
func zero(f vfs.File, from, to int64) error {
	if err := f.Preallocate(from, to-from); isDiskFull(err) {
		return err
	}
	buf := make([]byte, min(zeroPiece, to-from))
	for off := from; off < to; {
		n := min(int64(len(buf)), to-off)
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return err
		}
		if off += n; (off-from)%zeroChunk == 0 || off == to {
			if err := f.SyncData(); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}
