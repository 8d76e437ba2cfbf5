package replica

import (
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// brokenFS is the operating system's file system, whose writes or syncs of log files below one folder fail on demand.
type brokenFS struct {
	vfs.FS
	below     string
	failWrite atomic.Pointer[error]
	failSync  atomic.Pointer[error]
	// holdSync, if set, is what every sync waits for.
	holdSync atomic.Pointer[chan struct{}]
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

// brokenNode has two partitions, of which the log of number 0 can be made to fail.

func newBrokenFS(below string) *brokenFS { return &brokenFS{FS: vfs.Default, below: below} }

func (fs *brokenFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasPrefix(name, fs.below) {
		return f, err
	}
	return &brokenFile{f, fs}, nil
}

func (fs *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return fs.wrap(name, f, err)
}

func (fs *brokenFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return fs.wrap(name, f, err)
}

func (fs *brokenFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, c)
	return fs.wrap(to, f, err)
}

func failure(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *brokenFile) Write(b []byte) (int, error) {
	if err := failure(&f.fs.failWrite); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *brokenFile) WriteAt(b []byte, off int64) (int, error) {
	if err := failure(&f.fs.failWrite); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *brokenFile) Sync() error {
	if err := failure(&f.fs.failSync); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *brokenFile) SyncData() error {
	if hold := f.fs.holdSync.Load(); hold != nil {
		<-*hold
	}
	if err := failure(&f.fs.failSync); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *brokenFile) SyncTo(length int64) (bool, error) {
	if err := failure(&f.fs.failSync); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}
