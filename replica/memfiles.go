package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"replicanode/replica/mapped"
)

// memFiles reserves disk space for what is about to be written to a database, so that a full disk refuses writes. badger
// itself maps sparse files, which kill the process when their blocks cannot be had, and dies when it cannot make the next one.
//
// The files behind memtables are numbered from 1 on. badger takes the next one, creating it if need be, when the current one
// is full. memFiles creates it in time, empty and with blocks beyond its end; an empty file counts as new for badger. It is in use when
// it has a length. How much is written is estimated from above.
type memFiles struct {
	dir string
	// memTable is what badger writes to one file before it takes the next.
	memTable int64

	mu sync.Mutex
	// active is the file in use, ready those prepared to follow, the last of which has the number newest.
	active *memFile
	ready  []*memFile
	newest int
	// old are the numbers of the files that may still wait to become tables.
	old []int
	// used bounds what was written to the active file, or is about to be; pending is the latter part.
	used, pending int64
	// listed is when the list of tables was last seen to have room.
	listed time.Time
}

type memFile struct {
	number    int
	file      *os.File
	allocated int64
}

const (
	// memChunkBytes is the step in which a file gets blocks.
	memChunkBytes = 4 << 20
	// entryRoom is more than badger adds to a key and value, in memory or in the file; batchRoom what it adds to a batch, for
	// each of the transactions that it is split into.
	entryRoom = 192
	batchRoom = 16 << 10
	// maxUnflushed is how many full memtables badger keeps; when there is one more, writing waits.
	maxUnflushed = 3
	// manifestSpare is appended to badger's list of tables at most in manifestEvery, the entries of some thousand tables, and
	// manifestRoom what is reserved. A look costs more than many a write.
	manifestSpare = 64 << 10
	manifestRoom  = 256 << 10
	manifestEvery = 100 * time.Millisecond
)

// openMemFiles takes over the file that badger has just created in a folder without others.
func openMemFiles(dir string, memTable int64) (*memFiles, error) {
	m := &memFiles{dir: dir, memTable: memTable, newest: 1}
	f, err := os.OpenFile(m.path(1), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("file of the first memtable: %w", err)
	}
	m.active = &memFile{number: 1, file: f, allocated: mapped.FirstBytes}
	if err := m.reserveManifest(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *memFiles) path(number int) string {
	return filepath.Join(m.dir, fmt.Sprintf("%05d.mem", number))
}

// reserve makes sure that n bytes can be written, or says why not: an error of the system, ENOSPC above all. After it n bytes count as
// being written until done is called.
func (m *memFiles) reserve(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ensure(n); err != nil {
		return err
	}
	m.used += n
	m.pending += n
	return nil
}

// done says that n bytes which were reserved are written, or never will be.
func (m *memFiles) done(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	m.pending -= n
}

// check is reserve for something that may be written, or not.
func (m *memFiles) check(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ensure(n)
}

// ensure gives blocks to the active file and to as many as may follow it while n bytes are written.
func (m *memFiles) ensure(n int64) error {
	m.advance()
	need := m.used + n + batchRoom
	if err := m.grow(m.active, need); err != nil {
		return err
	}
	// badger looks whether a file is full between the transactions of a batch.
	followers := int(need / m.memTable)
	if followers == 0 {
		return nil
	}
	if err := m.reserveManifest(); err != nil {
		return err
	}
	if err := m.ensureFlush(followers); err != nil {
		return err
	}
	for len(m.ready) < followers {
		if err := m.prepare(); err != nil {
			return err
		}
	}
	for _, f := range m.ready {
		if err := m.grow(f, m.pending+n+batchRoom); err != nil {
			return err
		}
	}
	return nil
}

// advance notices which file badger uses. It takes the next one when the current one is full, which is not before so much was written
// at most: no need to look sooner.
func (m *memFiles) advance() {
	if m.used < m.memTable {
		return
	}
	for i := len(m.ready) - 1; i >= 0; i-- {
		if !mapped.Taken(m.ready[i].file) {
			continue
		}
		for _, f := range append([]*memFile{m.active}, m.ready[:i]...) {
			m.old = append(m.old, f.number)
			_ = f.file.Close()
		}
		m.active = m.ready[i]
		m.ready = slices.Delete(m.ready, 0, i+1)
		// Only what was being written since the last look can be in it.
		m.used = m.pending
		return
	}
}

// grow gives a file blocks for n bytes, but no more than badger ever maps.
func (m *memFiles) grow(f *memFile, n int64) error {
	n = min(n, 2*m.memTable)
	if n <= f.allocated {
		return nil
	}
	n = min((n/memChunkBytes+1)*memChunkBytes, 2*m.memTable)
	if err := mapped.Reserve(f.file, n); err != nil {
		return err
	}
	f.allocated = n
	return nil
}

// prepare makes the next file.
func (m *memFiles) prepare() error {
	f, err := os.OpenFile(m.path(m.newest+1), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return fmt.Errorf("prepare a memtable's file: %w", err)
	}
	if err := mapped.Reserve(f, mapped.FirstBytes); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	m.newest++
	m.ready = append(m.ready, &memFile{number: m.newest, file: f, allocated: mapped.FirstBytes})
	return nil
}

// ensureFlush refuses what could make badger wait for memtables to become tables, when there is no room for these.
func (m *memFiles) ensureFlush(followers int) error {
	kept := m.old[:0]
	for _, number := range m.old {
		if _, err := os.Lstat(m.path(number)); err == nil {
			kept = append(kept, number)
		}
	}
	m.old = kept
	if len(m.old)+followers <= maxUnflushed {
		return nil
	}
	free, _, err := mapped.Free(m.dir)
	if err != nil || free >= 2*m.memTable {
		return err
	}
	return fmt.Errorf("%d memtables wait for space: %w", len(m.old), syscall.ENOSPC)
}

// reserveManifest keeps room behind badger's list of tables: a record that is cut off would make the whole list unreadable.
func (m *memFiles) reserveManifest() error {
	now := time.Now()
	if !m.listed.IsZero() && now.Sub(m.listed) < manifestEvery {
		return nil
	}
	if err := m.growManifest(); err != nil {
		return err
	}
	m.listed = now
	return nil
}

func (m *memFiles) growManifest() error {
	f, err := os.OpenFile(filepath.Join(m.dir, "MANIFEST"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("reserve room in the list of tables: %w", err)
	}
	defer f.Close()
	spare, err := mapped.Spare(f)
	if err != nil || spare >= manifestSpare {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reserve room in the list of tables: %w", err)
	}
	return mapped.Reserve(f, st.Size()+manifestRoom)
}

// close lets go of the files; those that badger has not used are removed.
func (m *memFiles) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	_ = m.active.file.Close()
	for _, f := range m.ready {
		_ = f.file.Close()
		_ = os.Remove(f.file.Name())
	}
	m.ready = nil
}
