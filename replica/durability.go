package replica

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// pins are the decrees that somebody reads: the database must not drop versions visible at them.
type pins struct {
	mu sync.Mutex
	// held is ordered by decree.
	held []pin
}

type pin struct {
	decree uint64
	n      int
}

// enter pins the decree that applied holds now, and returns it.
func (s *pins) enter(applied *atomic.Uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	decree := applied.Load()
	s.add(decree)
	return decree
}

// add pins a decree. mu is held.
func (s *pins) add(decree uint64) {
	at, found := slices.BinarySearchFunc(s.held, decree, func(p pin, d uint64) int {
		switch {
		case p.decree < d:
			return -1
		case p.decree > d:
			return 1
		}
		return 0
	})
	if found {
		s.held[at].n++
		return
	}
	s.held = slices.Insert(s.held, at, pin{decree, 1})
}

func (s *pins) leave(decree uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.held {
		if s.held[i].decree == decree {
			if s.held[i].n--; s.held[i].n == 0 {
				s.held = slices.Delete(s.held, i, i+1)
			}
			return
		}
	}
}

// durability follows which decree is in the database's synced tables.
type durability struct {
	// looking is held by whoever looks at the tables. That may sync a folder, so the write path never takes it.
	looking sync.Mutex
	// background are the looks; waited for before the database is closed.
	background sync.WaitGroup
	// sync makes the names in a folder durable. Guarded by looking.
	sync func(dir string) error

	// mu guards what is below; nothing slow is done under it.
	mu      sync.Mutex
	db      *badger.DB // nil when there is nothing to look at, or no more
	dir     string
	decree  uint64
	checked time.Time
	written int
	// look is closed when the look in the background that is under way has ended; nil when none is. It began at began.
	look  chan struct{}
	began time.Time
	// closed: no more looks begin.
	closed bool
	// discard is the version up to which the database may drop what is superseded.
	discard uint64
}

const (
	// durableMaxAge is how old the answer of Durable may be.
	durableMaxAge = 100 * time.Millisecond
	// durablePatience is how long Durable waits for a look.
	durablePatience = 250 * time.Millisecond
	// durableCheckBytes written start a check on their own, so that superseded versions are dropped in time.
	durableCheckBytes = 4 << 20
)

// maxTableVersion is the highest version in the database's tables. Tables are synced, and noted in a synced manifest,
// before they show up; memtables become tables in the order in which they were written, and every applied batch ends
// with a record that is never dropped. So everything up to it, and at least a part of that decree itself, survives
// the loss of all memtables.
func maxTableVersion(db *badger.DB) uint64 {
	version := uint64(0)
	for _, t := range db.Tables() {
		version = max(version, t.MaxVersion)
	}
	return version
}

// Durable is the durable decree: what a crash of the machine leaves applied. It may lag by a fraction of a second. Finding out may
// sync a folder, which is waited for as long as a disk that works may take: with one that hangs the answer is the last known.
func (p *Partition) Durable() uint64 {
	d := &p.durable
	if look, began := d.lookAgain(p); look != nil {
		patience := time.NewTimer(durablePatience - time.Since(began))
		defer patience.Stop()
		select {
		case <-look:
		case <-patience.C:
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.decree
}

// lookAgain begins a look in the background when the last one is too old, and returns the one that is under way.
func (d *durability) lookAgain(p *Partition) (look <-chan struct{}, began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db != nil && time.Since(d.checked) >= durableMaxAge {
		d.beginLook(p)
	}
	return d.look, d.began
}

// beginLook begins a look in the background unless one is under way. mu is held.
func (d *durability) beginLook(p *Partition) {
	if d.look != nil || d.closed {
		return
	}
	look := make(chan struct{})
	d.look, d.began = look, time.Now()
	d.background.Go(func() {
		p.views.RLock()
		defer p.views.RUnlock()
		p.refreshDurable()
		d.mu.Lock()
		d.look = nil
		d.mu.Unlock()
		close(look)
	})
}

// end lets no look begin any more and waits for the one that is under way.
func (d *durability) end() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.background.Wait()
}

// begin notes that the tables are looked at now. db is nil when there is nothing to look at.
func (d *durability) begin() (db *badger.DB, dir string, decree uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checked, d.written = time.Now(), 0
	return d.db, d.dir, d.decree
}

// refreshDurable looks at the tables. views is held, so that the database stays open.
func (p *Partition) refreshDurable() {
	d := &p.durable
	d.looking.Lock()
	defer d.looking.Unlock()
	db, dir, decree := d.begin()
	if db == nil {
		return
	}
	if version := maxTableVersion(db); version > decree {
		// A decree may be split over two memtables, so the last one counts as durable only in part.
		if err := d.sync(dir); err != nil {
			p.folderNotSynced(err)
			return
		}
		d.mu.Lock()
		d.decree = version
		d.mu.Unlock()
		if p.o.DurableAdvanced != nil {
			p.o.DurableAdvanced(p.id)
		}
	}
	p.moveDiscard(db)
}

// errFolderSync is wrapped by the error of a folder's sync that was tried and failed.
var errFolderSync = errors.New("sync of a folder failed")

// folderNotSynced stops the partition when the names of tables may be lost: a later sync that succeeds would not tell. What could not
// even be tried is tried again.
func (p *Partition) folderNotSynced(err error) {
	if !errors.Is(err, errFolderSync) {
		p.log.Warn("database folder not synced yet", "error", err)
		return
	}
	p.durable.mu.Lock()
	p.durable.db = nil
	p.durable.mu.Unlock()
	p.fail(fmt.Errorf("make tables of the database durable: %w", err))
}

// moveDiscard lets the database drop what nobody can read any more: what is superseded below the durable decree, the
// applied one and every pin.
func (p *Partition) moveDiscard(db *badger.DB) {
	d := &p.durable
	d.mu.Lock()
	defer d.mu.Unlock()
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	discard := uint64(0)
	if d.decree > 0 {
		discard = d.decree - 1
	}
	// Tables may hold what is written but not applied yet; a reader that comes now pins the applied decree.
	discard = min(discard, p.applied.Load())
	if len(p.pins.held) > 0 {
		discard = min(discard, p.pins.held[0].decree)
	}
	if discard > d.discard {
		d.discard = discard
		db.SetDiscardTs(discard)
	}
}

// wrote notes that bytes went into the database. It is the write path, so the tables are looked at elsewhere.
func (d *durability) wrote(p *Partition, entries []badger.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		d.written += len(entries[i].Key) + len(entries[i].Value)
	}
	if d.written >= durableCheckBytes {
		d.beginLook(p)
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errFolderSync, err)
	}
	return nil
}

// DB is the database; nil until the partition is open and after it was closed. Read it at pinned decrees only.
func (p *Partition) DB() *badger.DB {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.db
}

// PinApplied keeps the state at the applied decree readable until release is called; calling it again is harmless.
func (p *Partition) PinApplied() (decree uint64, release func(), err error) {
	if p.DB() == nil {
		return 0, nil, ErrNotReady
	}
	decree = p.pins.enter(&p.applied)
	return decree, p.unpin(decree), nil
}

// Pin keeps the state at a decree readable until release is called; calling it again is harmless. The decree must not
// be beyond the applied one, and is refused with ErrReleased when what it needs may be dropped already.
func (p *Partition) Pin(decree uint64) (release func(), err error) {
	if p.DB() == nil {
		return nil, ErrNotReady
	}
	p.durable.mu.Lock()
	defer p.durable.mu.Unlock()
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	if decree < p.durable.discard || decree > p.applied.Load() {
		return nil, fmt.Errorf("pin decree %d: %w", decree, ErrReleased)
	}
	p.pins.add(decree)
	return p.unpin(decree), nil
}

func (p *Partition) unpin(decree uint64) func() {
	return sync.OnceFunc(func() { p.pins.leave(decree) })
}

// ReadAt is a transaction that reads the state at a decree, which must be pinned. Discard it before the pin is
// released and before the host is stopped.
func (p *Partition) ReadAt(decree uint64) (*badger.Txn, error) {
	db := p.DB()
	if db == nil {
		return nil, ErrNotReady
	}
	if decree > p.Applied() {
		return nil, fmt.Errorf("read at decree %d, applied is %d: %w", decree, p.Applied(), ErrReleased)
	}
	return db.NewTransactionAt(decree, false), nil
}

// Mark tells two histories of a partition apart that have reached the same decree, which must be pinned: one in which the
// partition was put back to an earlier state, or began anew, has another timestamp there.
func (p *Partition) Mark(decree uint64) (string, error) {
	txn, err := p.ReadAt(decree)
	if err != nil {
		return "", err
	}
	defer txn.Discard()
	item, err := txn.Get(appliedKey)
	if err != nil {
		return "", fmt.Errorf("read the record of decree %d: %w", decree, err)
	}
	mark := ""
	err = item.Value(func(v []byte) error {
		mark = hex.EncodeToString(v)
		return nil
	})
	return mark, err
}

// MarkTime is the timestamp in what Mark returned, which grows with the decrees of a history, whatever the machine's clock does, and with the
// physical time between two of them; 0 when there is none.
func MarkTime(mark string) uint64 {
	b, err := hex.DecodeString(mark)
	if err != nil {
		return 0
	}
	r, err := parseAppliedRecord(b)
	if err != nil {
		return 0
	}
	return uint64(r.timestamp)
}

// ReleaseLog lets the private log forget everything up to decree, but never what recovery needs (replay starts at the
// durable decree) or what another voter lacks.
func (p *Partition) ReleaseLog(decree uint64) error {
	log := p.Log()
	if log == nil {
		return ErrNotReady
	}
	g, durable := p.openGroup(), p.Durable()
	if g == nil || durable == 0 {
		return nil
	}
	decree = min(decree, durable-1)
	if !p.single.Load() {
		decree = min(decree, p.h.minMatch(g))
	}
	if decree < log.FirstIndex() {
		return nil
	}
	if err := log.Release(decree); err != nil {
		return fmt.Errorf("release log of partition %d up to %d: %w", p.id, decree, err)
	}
	return nil
}
