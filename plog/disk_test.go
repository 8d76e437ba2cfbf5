package plog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskFS is a file system above a disk that can be cut off from power. A file written through it is seen at once, as from the
// page cache, and reaches the disk with a sync. A failed sync loses what it was to write for good, though it goes on being seen:
// a later sync reports success and does not write it. Names and sizes are durable at once.
type diskFS struct {
	vfs.FS
	mu   sync.Mutex
	disk map[string]*diskFile
	// fail is asked before each write and sync. For a write, short says how much of it is done in spite of the error.
	fail func(name string, sync bool, size int) (short int, err error)
}

// diskFile is what the disk holds of a file, and what was written since its last sync.
type diskFile struct {
	content []byte
	dirty   []dirtyRange
}

type dirtyRange struct {
	off   int64
	bytes []byte
}

func newDiskFS() *diskFS {
	return &diskFS{FS: vfs.NewMem(), disk: map[string]*diskFile{},
		fail: func(string, bool, int) (int, error) { return 0, nil }}
}

func (d *diskFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk[name] = &diskFile{}
	return &openDiskFile{File: f, d: d, name: name, disk: d.disk[name]}, nil
}

func (d *diskFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &openDiskFile{File: f, d: d, name: name, disk: d.disk[name]}, nil
}

func (d *diskFS) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk[to] = d.disk[from]
	delete(d.disk, from)
	return d.FS.Rename(from, to)
}

func (d *diskFS) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.disk, name)
	return d.FS.Remove(name)
}

// setFail replaces fail; nil: nothing fails.
func (d *diskFS) setFail(fail func(name string, sync bool, size int) (int, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fail == nil {
		fail = func(string, bool, int) (int, error) { return 0, nil }
	}
	d.fail = fail
}

// losePower returns what is on the disk.
func (d *diskFS) losePower(t testing.TB) *vfs.MemFS {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	im := image{}
	for name, f := range d.disk {
		im[d.PathBase(name)] = f.content
	}
	return im.restore(t)
}

type openDiskFile struct {
	vfs.File
	d    *diskFS
	name string
	disk *diskFile
	end  int64 // of what Write wrote
}

func (f *openDiskFile) Write(b []byte) (int, error) {
	n, err := f.write(b, f.end, f.File.Write)
	f.end += int64(n)
	return n, err
}

func (f *openDiskFile) WriteAt(b []byte, off int64) (int, error) {
	return f.write(b, off, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

func (f *openDiskFile) write(b []byte, off int64, do func([]byte) (int, error)) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	short, failed := f.d.fail(f.name, false, len(b))
	if failed != nil {
		b = b[:short]
	}
	n, err := 0, error(nil)
	if len(b) > 0 {
		n, err = do(slices.Clone(b))
		f.disk.dirty = append(f.disk.dirty, dirtyRange{off, slices.Clone(b[:n])})
	}
	return n, errors.Join(failed, err)
}

func (f *openDiskFile) Sync() error     { return f.sync() }
func (f *openDiskFile) SyncData() error { return f.sync() }

func (f *openDiskFile) sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	_, err := f.d.fail(f.name, true, 0)
	for _, r := range f.disk.dirty {
		if err != nil {
			break
		}
		if need := int(r.off) + len(r.bytes); need > len(f.disk.content) {
			f.disk.content = append(f.disk.content, make([]byte, need-len(f.disk.content))...)
		}
		copy(f.disk.content[r.off:], r.bytes)
	}
	f.disk.dirty = nil
	return err
}

// TestFailedSyncIsNotTrusted lets every sync fail in turn. What is acknowledged after the log was opened again is on the disk, though
// the page cache still showed what the failed sync had lost.
func TestFailedSyncIsNotTrusted(t *testing.T) {
	syncer := startSyncer(t)
	opts := Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1}
	for n := 1; ; n++ {
		fs, left := newDiskFS(), n
		fs.setFail(func(_ string, sync bool, _ int) (int, error) {
			if sync {
				if left--; left == 0 {
					return 0, syscall.EIO
				}
			}
			return 0, nil
		})
		l, err := tryOpen(fs, opts)
		if err != nil {
			continue
		}
		r := &faultRun{t: t, l: l, states: []state{{}}}
		var failed error
		for i := 0; i < len(faultOps) && failed == nil; i++ {
			failed = r.do(faultOps[i])
		}
		_ = l.Close()
		hit := left <= 0
		fs.setFail(nil)
		l = open(t, fs, opts)
		s, err := matching(l, r.states)
		if err != nil {
			t.Fatalf("n=%d: %v", n, err)
		}
		es := batch(s.last()+1, 2, s.lastTerm()+1, 500)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
		lost := fs.losePower(t)
		closeLog(t, l)
		if l, err = tryOpen(lost, opts); err == nil {
			if err = s.diff(l); err == nil {
				err = l.Close()
			}
		}
		if err != nil {
			t.Fatalf("sync %d failed, then opened, appended to and cut off: %v", n, err)
		}
		if !hit {
			if n < 20 {
				t.Fatalf("only %d syncs", n)
			}
			return
		}
	}
}

// matching returns the one of states that the log is in.
func matching(l *Log, states []state) (state, error) {
	var errs []error
	for _, s := range states {
		err := s.diff(l)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return state{}, errors.Join(errs...)
}

// TestShortWrites breaks every write in turn after a part of it, for lack of space: what was refused is not in the log, neither then nor
// when it is opened again, after Close or a kill, with the power on or cut.
func TestShortWrites(t *testing.T) {
	syncer := startSyncer(t)
	opts := Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1, MaxSpares: -1}
	parts := map[string]func(size int) int{
		"half": func(size int) int { return size / 2 },
		"all":  func(size int) int { return size },
		"most": func(size int) int { return size - 1 },
	}
	for part, of := range parts {
		for n, hit := 1, true; hit; n++ {
			for i, end := range []string{"closed", "killed", "cut off"} {
				if !stress && i != n%3 {
					continue
				}
				what := fmt.Sprintf("write %d, %s of it, %s", n, part, end)
				fs, left := newDiskFS(), n
				fs.setFail(func(_ string, sync bool, size int) (int, error) {
					if left--; !sync && left == 0 {
						return of(size), syscall.ENOSPC
					}
					if sync {
						left++
					}
					return 0, nil
				})
				l, err := tryOpen(fs, opts)
				if err != nil {
					continue
				}
				r := &faultRun{t: t, l: l, states: []state{{}}}
				for i := 0; i < len(faultOps) && err == nil; i++ {
					err = r.do(faultOps[i])
				}
				fs.setFail(nil)
				if hit = left <= 0; err != nil && !errors.Is(err, ErrDiskFull) {
					t.Fatalf("%s: %v", what, err)
				}
				s, disk := r.states[0], vfs.FS(fs)
				if err := s.diff(l); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				switch end {
				case "closed":
					closeLog(t, l)
				case "killed":
					disk = takeImage(t, fs).restore(t)
					closeLog(t, l)
				case "cut off":
					disk = fs.losePower(t)
					closeLog(t, l)
				}
				l = open(t, disk, opts)
				if err := s.diff(l); err != nil {
					t.Fatalf("%s, opened again: %v", what, err)
				}
				closeLog(t, l)
			}
		}
	}
}

// TestShortWriteOfAGroup breaks the write of two batches behind the first: both are refused and stay away.
func TestShortWriteOfAGroup(t *testing.T) {
	for _, erasable := range []bool{true, false} {
		fs, l, s, name := newDiskFS(), (*Log)(nil), state{}, ""
		opts := Options{SegmentBytes: 64 << 10, CacheBytes: 1}
		opts.Syncer = startSyncer(t)
		l = open(t, fs, opts)
		es := batch(1, 2, 1, 300)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
		closeLog(t, l)

		opts.Syncer = NewSyncer(SyncerOptions{Workers: 1})
		l = open(t, fs, opts)
		name = segmentName(l.active().seq)
		full := true
		fs.setFail(func(file string, sync bool, size int) (int, error) {
			switch {
			case !full || sync || fs.PathBase(file) != name:
				return 0, nil
			case size > 700:
				return 600, syscall.ENOSPC
			case !erasable:
				return 0, syscall.ENOSPC
			}
			return 0, nil
		})
		refused := make(chan error, 2)
		for i := range uint64(2) {
			if err := l.Append(batch(3+i, 1, 1, 400), nil, func(err error) { refused <- err }); err != nil {
				t.Fatal(err)
			}
		}
		opts.Syncer.start()
		for range 2 {
			if err := <-refused; !errors.Is(err, ErrDiskFull) {
				t.Fatal(err)
			}
		}
		if !erasable {
			fs.setFail(nil) // there is room again by the time of Close
		}
		closeLog(t, l)
		opts.Syncer.stop()
		opts.Syncer = startSyncer(t)
		l = open(t, fs, opts)
		if err := s.diff(l); err != nil {
			t.Errorf("erasable %v: %v", erasable, err)
		}
		closeLog(t, l)
	}
}
