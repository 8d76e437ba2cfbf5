package plogbench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"replicanode/plog"
)

// Subject is a log under test. Append may be called concurrently, the rest may not.
type Subject interface {
	// Append adds the records, which are durable when it returns.
	Append(records [][]byte) error
	// Fill adds the records without waiting; Flush makes them durable.
	Fill(records [][]byte) error
	Flush() error
	// Trim forgets all but the newest records.
	Trim() error
	// Read streams all records, checking what the log can check, and returns how many there are.
	Read() (uint64, error)
	Close() error
}

// Factory makes subjects of one kind.
type Factory struct {
	Name string
	Open func(dir string) (Subject, error)
}

// Ours is the log of this project. syncer nil: each log has its own.
func Ours(syncer *plog.Syncer) Factory {
	return Factory{Name: "replicanode", Open: func(dir string) (Subject, error) {
		l, err := plog.Open(dir, 1, plog.Options{Syncer: syncer})
		if err != nil {
			return nil, err
		}
		return &ours{log: l, calls: sync.Pool{New: newCall}}, nil
	}}
}

type ours struct {
	log   *plog.Log
	alone bool       // one goroutine appends
	mu    sync.Mutex // orders the decrees of several
	calls sync.Pool
}

// call is what one Append needs, kept for the next one.
type call struct {
	entries []plog.Entry
	done    chan error
	report  func(error)
}

func newCall() any {
	c := &call{done: make(chan error, 1)}
	c.report = func(err error) { c.done <- err }
	return c
}

func (o *ours) Append(records [][]byte) error {
	c := o.calls.Get().(*call)
	defer o.calls.Put(c)
	if o.alone {
		c.number(o.log.LastIndex()+1, records)
		return o.log.AppendSync(c.entries, nil)
	}
	if err := o.append(c, records, c.report); err != nil {
		return err
	}
	return <-c.done
}

func (o *ours) append(c *call, records [][]byte, done func(error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.number(o.log.LastIndex()+1, records)
	return o.log.Append(c.entries, nil, done)
}

// number makes the records entries from decree next on.
func (c *call) number(next uint64, records [][]byte) {
	c.entries = c.entries[:0]
	for i, b := range records {
		c.entries = append(c.entries, plog.Entry{Index: next + uint64(i), Term: 1, Data: b})
	}
}

func (o *ours) Fill(records [][]byte) error {
	if o.log.Stats().Pending > 16<<20 {
		if err := o.Flush(); err != nil {
			return err
		}
	}
	c := o.calls.Get().(*call)
	defer o.calls.Put(c)
	return o.append(c, records, nil)
}

func (o *ours) Flush() error { return o.Append(nil) }

func (o *ours) Trim() error { return o.log.Release(o.log.DurableIndex()) }

func (o *ours) Read() (n uint64, err error) {
	o.log.SetCommitted(o.log.LastIndex())
	r, err := o.log.NewReader(o.log.FirstIndex())
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		n++
	}
}

func (o *ours) Close() error { return o.log.Close() }

// bareSize is the file the bare loop goes round in, as large as a segment.
const bareSize = 16 << 20

// barePiece is how much of it is written at a time: a page cache in larger pieces makes each sync slower.
const barePiece = 64 << 10

// bareAppend is what the disk allows: each batch one write in place over written space, and fdatasync.
func bareAppend() Factory {
	return Factory{Name: "bare disk", Open: func(dir string) (Subject, error) {
		f, err := os.Create(dir)
		if err != nil {
			return nil, err
		}
		piece := make([]byte, barePiece)
		for range bareSize / barePiece {
			if _, err := f.Write(piece); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if err := f.Sync(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &bare{f: f}, nil
	}}
}

type bare struct {
	f   *os.File
	buf []byte
	off int64
}

func (b *bare) Append(records [][]byte) error {
	b.buf = b.buf[:0]
	for _, r := range records {
		b.buf = append(b.buf, r...)
	}
	if b.off+int64(len(b.buf)) > bareSize {
		b.off = 0
	}
	if _, err := b.f.WriteAt(b.buf, b.off); err != nil {
		return err
	}
	b.off += int64(len(b.buf))
	return unix.Fdatasync(int(b.f.Fd()))
}

func (b *bare) Fill([][]byte) error   { return errors.ErrUnsupported }
func (b *bare) Flush() error          { return nil }
func (b *bare) Trim() error           { return nil }
func (b *bare) Read() (uint64, error) { return 0, errors.ErrUnsupported }
func (b *bare) Close() error          { return b.f.Close() }

// bareRead reads the files of a log of ours, made by f, with large reads and does nothing with the bytes.
func bareRead(f Factory) Factory {
	return Factory{Name: "bare disk", Open: func(dir string) (Subject, error) {
		s, err := f.Open(dir)
		if err != nil {
			return nil, err
		}
		return &rawReader{ours: s.(*ours), dir: dir}, nil
	}}
}

type rawReader struct {
	*ours
	dir string
}

// Read counts the records, and leaves them out of the cache.
func (r *rawReader) Read() (uint64, error) {
	n, err := r.ours.Read()
	if err != nil {
		return n, err
	}
	return n, dropCaches(r.dir)
}

// raw reads the written segments with large reads.
func (r *rawReader) raw() error {
	buf := make([]byte, 1<<20)
	names, err := filepath.Glob(filepath.Join(r.dir, "*.seg"))
	if err != nil {
		return err
	}
	for left := r.log.Stats().Live; left > 0 && len(names) > 0; names = names[1:] {
		f, err := os.Open(names[0])
		if err != nil {
			return fmt.Errorf("read a segment: %w", err)
		}
		for n := 0; err == nil && left > 0; left -= int64(n) {
			n, err = f.Read(buf)
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read a segment: %w", err)
		}
	}
	return nil
}

// dropCaches has the kernel forget the cached pages of all files under dir. One that is renamed meanwhile is a segment being prepared,
// which nobody reads.
func dropCaches(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
