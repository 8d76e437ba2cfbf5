package plog

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	journalName    = "JOURNAL"
	journalTmpName = "JOURNAL.tmp"
	// JournalDir is the folder of a journal, as seen from the folder of the partitions' folders: where Verify and Dump look for it.
	JournalDir = "journal"
	// MinJournalBytes and MaxJournalBytes bound JournalOptions.Bytes.
	MinJournalBytes = 64 << 10
	MaxJournalBytes = 1 << 30
)

// JournalOptions tune a Journal.
type JournalOptions struct {
	// FS is where the journal and its logs live. Nil: the operating system's files.
	FS vfs.FS
	// Bytes is the size of the journal's file, MinJournalBytes..MaxJournalBytes. 0: 32 MiB. Negative: what an earlier process left in
	// a journal is brought back, and nothing is written to it.
	Bytes int64
	// LogDir returns the folder of a partition's log. Required.
	LogDir func(partition uint32) string
	// Partitions are those whose logs are there. Each is asked whether it knows a newer journal than the one that is found. Others are not.
	Partitions []uint32
	// AcceptLoss opens a damaged or unreadable journal all the same, brings back what can be read of it, keeps it as JOURNAL.damaged, and
	// lets logs be opened whose journal is lost. Acknowledged batches can be missing then.
	AcceptLoss bool
	// LetGo are partitions whose logs are about to be taken out of their places. What the journal has of them is brought back once more, so that the
	// folders are whole by themselves, and is not waited for from then on, be they there or not.
	LetGo []uint32
	// Logger receives one line per event. Nil: discard.
	Logger *slog.Logger
	// Metrics counts. Nil: not counted.
	Metrics *Metrics
}

// EnsureDefaults fills what is zero.
func (o *JournalOptions) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.Bytes = cmp.Or(o.Bytes, 32<<20)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate names the first value out of range.
func (o *JournalOptions) Validate() error {
	switch {
	case o.Bytes >= 0 && (o.Bytes < MinJournalBytes || o.Bytes > MaxJournalBytes):
		return fmt.Errorf("plog: journal bytes %d not in %d..%d", o.Bytes, MinJournalBytes, int64(MaxJournalBytes))
	case o.LogDir == nil:
		return errors.New("plog: a journal needs to know the folders of its logs")
	}
	return nil
}

// Journal makes what was appended to many logs durable with one sync: a Syncer writes the same bytes to the logs' segments, which are
// synced much later, and to a block of the journal, which is synced at once. OpenJournal brings blocks back to the segments they
// belong to, before any of the logs is opened. The Syncer it is given to closes it.
//
// It has two areas, used in turn. A full one is emptied by syncing the segments of all logs that have bytes in it. While none has
// room, logs sync themselves.
type Journal struct {
	opts JournalOptions
	dir  string
	id   uint64 // of this journal, kept for ever
	any  bool   // logs whose journal is lost may be opened
	off  bool   // nothing is written
	// away are the logs, by id, that were not brought back: they cannot be opened.
	away map[uint64]*ErrUnreachable
	// forgotten are the logs, by id, of which the journal has given batches up.
	forgotten forgotten

	file      vfs.File // the rounds'
	marks     vfs.File // the same file, for whoever empties an area: each of the two hears of a failed write
	areaBytes int64

	mu         sync.Mutex
	cond       sync.Cond
	areas      [journalAreas]area
	cur        int
	generation uint64 // the highest one given
	begun      uint64 // the first one given by this process
	reach      Reach  // of the last block, or of this process's start
	err        error  // why the journal is given up
	closed     bool
	once       sync.Once // close
}

// area is one half of the file. Its first page is its header.
type area struct {
	generation uint64
	off        int64 // of the next block, in the file
	blocks     uint64
	was        Reach  // of the area used before
	logs       []*Log // that have bytes here
	full       bool   // waits to be emptied
	stuck      bool   // holds bytes of a dead log, until the next start
}

// newID draws the identity of a log or a journal.
func newID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}

// room returns how large the next block may be, 0 when the logs have to sync themselves.
func (j *Journal) room() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil || j.off {
		return 0
	}
	a := &j.areas[j.cur]
	left := j.areaEnd(j.cur) - a.off
	if a.full || a.stuck || left < min(maxBlockBytes/4, j.areaBytes/4) {
		a.full = true
		j.cond.Signal()
		next := (j.cur + 1) % journalAreas
		if n := &j.areas[next]; n.full || n.stuck {
			return 0
		}
		j.areas[next].was = Reach{Generation: a.generation, End: a.off}
		j.cur = next
		left = j.areaEnd(next) - j.areas[next].off
	}
	return int(min(left, maxBlockBytes))
}

func (j *Journal) areaEnd(i int) int64 { return int64(i+1) * j.areaBytes }

// write makes b durable, which holds bytes of logs. After a failure the journal is given up.
func (j *Journal) write(b *block, logs []*Log) error {
	if b.entries == 0 {
		return nil
	}
	j.mu.Lock()
	a := &j.areas[j.cur]
	for _, l := range logs {
		if l.touched != a.generation {
			l.touched = a.generation
			a.logs = append(a.logs, l)
		}
	}
	p := blockPlace{id: j.id, generation: a.generation, number: a.blocks, off: a.off}
	was := a.was
	j.mu.Unlock()
	bytes, off := b.seal(p, was), p.off
	if _, err := j.file.WriteAt(bytes, off); err != nil {
		return j.giveUp(fmt.Errorf("write plog journal at %d: %w", off, err))
	}
	if err := j.file.SyncData(); err != nil {
		return j.giveUp(fmt.Errorf("sync plog journal: %w", err))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	a.off += int64(len(bytes))
	a.blocks++
	j.reach = Reach{Generation: a.generation, End: a.off}
	return nil
}

// reached returns how far the journal goes, durably: one that lacks this is an older copy.
func (j *Journal) reached() Reach {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reach
}

// giveUp ends the use of the journal; what it holds stays until the next start.
func (j *Journal) giveUp(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
		j.opts.Logger.Error("journal of the private logs given up: each log syncs itself from now on", "error", err)
	}
	return err
}

// run empties full areas until close.
func (j *Journal) run() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for !j.closed {
		i := -1
		for k := range j.areas {
			if j.areas[k].full && !j.areas[k].stuck {
				i = k
			}
		}
		if i < 0 || j.err != nil {
			j.cond.Wait()
			continue
		}
		j.mu.Unlock()
		j.empty(i)
		j.mu.Lock()
	}
}

// empty syncs the segments of all logs with bytes in area i and makes it free. Nobody writes to the area meanwhile.
func (j *Journal) empty(i int) {
	j.mu.Lock()
	a := &j.areas[i]
	logs := a.logs
	j.mu.Unlock()
	began, dead := time.Now(), 0
	for _, l := range logs {
		if !l.settleBehind() {
			dead++
		}
	}
	if dead > 0 {
		j.mu.Lock()
		a.stuck = true
		j.mu.Unlock()
		j.opts.Logger.Warn("half of the journal holds bytes of dead private logs and stays as it is until the next start", "area", i, "logs", dead)
		return
	}
	j.mu.Lock()
	j.generation++
	generation := j.generation
	j.mu.Unlock()
	if err := j.writeHeader(j.marks, i, generation); err != nil {
		_ = j.giveUp(err)
		return
	}
	j.opts.Logger.Debug("half of the journal emptied", "area", i, "logs", len(logs), "took", time.Since(began))
	j.opts.Metrics.journalCheckpoint()
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(a.logs)
	*a = area{generation: generation, off: int64(i)*j.areaBytes + journalAlign, logs: a.logs[:0]}
}

// writeHeader starts a generation of area i, durably: the blocks of earlier ones are void.
func (j *Journal) writeHeader(f vfs.File, i int, generation uint64) error {
	var b [journalHeaderLen]byte
	h := journalHeader{id: j.id, generation: generation, areaBytes: j.areaBytes, area: uint32(i)}
	h.put(b[:])
	off := int64(i) * j.areaBytes
	if _, err := f.WriteAt(b[:], off); err != nil {
		return fmt.Errorf("write header of %s at %d: %w", j.path(journalName), off, err)
	}
	if err := f.SyncData(); err != nil {
		return fmt.Errorf("sync header of %s at %d: %w", j.path(journalName), off, err)
	}
	return nil
}

// settleBehind syncs what only the journal made durable. False: the log is dead, and what its segment holds is unknown.
func (l *Log) settleBehind() bool {
	l.ioMu.Lock()
	l.mu.Lock()
	s, dead := l.active(), l.failed != nil
	seq, end := s.seq, s.end
	l.mu.Unlock()
	if dead || !l.unsettled {
		l.ioMu.Unlock()
		return !dead
	}
	// A handle of its own hears of every failed write that no other handle has told the log of, which would have died of it.
	f, err := l.fs.OpenReadWrite(l.path(segmentName(seq)), vfs.WriteCategoryUnspecified)
	l.ioMu.Unlock()
	if err == nil {
		err = f.SyncData()
		_ = f.Close()
	}
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		_ = l.fail(fmt.Errorf("sync plog segment %d: %w", seq, err))
	}
	if s := l.active(); s.seq == seq && s.end == end && l.failed == nil {
		l.unsettled = false
	}
	return l.failed == nil
}

// settle syncs the active segment if the journal alone made part of it durable: what a manifest says of it must hold without the journal.
// ioMu is held.
func (l *Log) settle() error {
	if !l.unsettled {
		return nil
	}
	l.mu.Lock()
	s := l.active()
	l.mu.Unlock()
	return l.syncActive(s)
}

// close empties what can be emptied, so that the next start has nothing to bring back, and closes the file. The rounds have ended.
func (j *Journal) close() { j.once.Do(j.end) }

func (j *Journal) end() {
	j.mu.Lock()
	var used []int
	for i := range j.areas {
		if a := &j.areas[i]; !j.off && j.err == nil && !a.stuck && a.blocks > 0 {
			used = append(used, i)
		}
	}
	j.mu.Unlock()
	for _, i := range used {
		j.empty(i)
	}
	j.closeFiles()
}

// halt ends run.
func (j *Journal) halt() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.cond.Broadcast()
}

// admit says whether the log that m describes can be opened: the journal that may hold its last batches was brought back. renew: it has
// to get a new id before anything is appended to it, so that nothing older that some journal has of it is ever written over that.
func (j *Journal) admit(m *manifest) (renew bool, err error) {
	missing := m.journal != 0 && (j == nil || j.id != m.journal || j.forgotten.has(m.id))
	if missing && (j == nil || !j.any) {
		return false, &ErrCorrupt{Kind: KindJournalMissing, Offset: manifestJournal}
	}
	if j == nil {
		return false, nil
	}
	if err := j.outrun(m); err != nil && !missing {
		if !j.any {
			return false, err
		}
		missing = true
	}
	if away := j.away[m.id]; away != nil {
		return false, away
	}
	return missing || j.forgotten.has(m.id), j.diedBefore(m.id)
}

// diedBefore returns why a log that this process has open no more, but has bytes of in the journal, cannot be opened again.
func (j *Journal) diedBefore(id uint64) error {
	j.mu.Lock()
	var dead []*Log
	for i := range j.areas {
		for _, l := range j.areas[i].logs {
			if l.id == id {
				dead = append(dead, l)
			}
		}
	}
	j.mu.Unlock()
	for _, l := range dead {
		if err := l.Failed(); err != nil {
			return fmt.Errorf("the journal has to be brought back to the log before: %w", err)
		}
	}
	return nil
}
