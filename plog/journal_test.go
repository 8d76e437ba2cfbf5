package plog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// TestJournalClosedLog: a log that was closed does not need the journal any more.
func TestJournalClosedLog(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.start()
	for range 5 {
		f.do('+', 0)
	}
	closeLog(t, f.worlds[0].l)
	lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
	if err := lost.RemoveAll("/d/journal"); err != nil {
		t.Fatal(err)
	}
	l, err := f.openLog(nil, lost, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := f.worlds[0].c.current()
	if err := s.diff(l); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	// The others need it, and say so.
	_, err = f.openLog(nil, lost, 1)
	var damage *ErrCorrupt
	if !errors.As(err, &damage) || damage.Kind != KindJournalMissing || damage.Partition != 1 {
		t.Errorf("opened without its journal: %v", err)
	}
	// So does the closed one, once it is opened again and appended to.
	f.worlds[0].open()
	f.do('a', 0)
	f.do('a', 0)
	lost = f.mem.CrashClone(vfs.CrashCloneCfg{})
	if err := lost.RemoveAll("/d/journal"); err != nil {
		t.Fatal(err)
	}
	if _, err = f.openLog(nil, lost, 0); !errors.As(err, &damage) || damage.Kind != KindJournalMissing {
		t.Errorf("opened again and appended to, then opened without its journal: %v", err)
	}
	for _, w := range f.worlds {
		closeLog(t, w.l)
	}
	f.syncer.stop()
}

// TestJournalStopped: a process that was stopped leaves nothing to bring back.
func TestJournalStopped(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.start()
	for range 20 {
		f.do('+', 0)
	}
	f.stop()
	s, report, err := startJournaled(t, f.mem.CrashClone(vfs.CrashCloneCfg{}), f.bytes)
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if report.Blocks != 0 || report.Entries != 0 || report.Skipped != 0 {
		t.Errorf("left behind: %+v", report)
	}
}

// TestJournalOfAnotherLog: bytes of a log that was destroyed do not get into one that was made in its place, with the same partition and
// the same segments.
func TestJournalOfAnotherLog(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.bytes = 1 << 20
	f.start()
	for range 4 {
		f.do('+', 0)
	}
	w := f.worlds[0]
	closeLog(t, w.l)
	if err := f.fs.RemoveAll(fleetDir(0)); err != nil {
		t.Fatal(err)
	}
	w.c.states = []state{{}}
	w.open()
	w.append(batch(1, 1, 9, 120), nil)
	lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
	want := w.c.current()
	f.stop()
	s, report, err := startJournaled(t, lost, f.bytes)
	if err != nil {
		t.Fatal(err)
	}
	if report.Skipped == 0 || report.Blocks == 0 || report.Logs == 0 {
		t.Errorf("nothing of the old log in the journal: %+v", report)
	}
	l, err := f.openLog(s, lost, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := want.diff(l); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	s.stop()
}

// TestJournalSizes: a journal of another size, or none, brings back what was written to the one before.
func TestJournalSizes(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.start()
	mem := f.mem
	for _, size := range []int64{4 * MinJournalBytes, MinJournalBytes, -1, MinJournalBytes} {
		for range 3 {
			f.do('+', 0)
		}
		lost := mem.CrashClone(vfs.CrashCloneCfg{})
		f.stop()
		f.mem, f.bytes, mem = lost, size, lost
		f.fs = lost
		for i, w := range f.worlds {
			w.fs = lost
			w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(f.syncer, fs, i) }
		}
		f.start()
		for i, w := range f.worlds {
			s := w.c.current()
			if err := s.diff(w.l); err != nil {
				t.Fatalf("journal of %d bytes, log %d: %v", size, i, err)
			}
		}
	}
	f.stop()
}

// TestJournalStaleGenerations: what earlier turns left behind the last block of an area is not taken for damage, and not brought back.
func TestJournalStaleGenerations(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.start()
	for range 60 {
		f.do('+', 0)
	}
	j := f.syncer.opts.Journal
	j.mu.Lock()
	turns, cur := j.generation, j.cur
	blocks := [journalAreas]uint64{j.areas[0].blocks, j.areas[1].blocks}
	j.mu.Unlock()
	if turns < 5 {
		t.Fatalf("%d turns", turns)
	}
	jf, err := openJournalFile(f.mem, "/d/journal/"+journalName, false)
	if err != nil {
		t.Fatal(err)
	}
	defer jf.close()
	if jf.damage != nil || jf.blocks[cur] != blocks[cur] {
		t.Errorf("%v; %d blocks, want %d", jf.damage, jf.blocks[cur], blocks[cur])
	}
	f.stop()
}

// journalImage is a crash clone whose logs rest on the journal alone, the content of the journal, and where its last block begins.
func journalImage(t testing.TB, rounds int) (f *fleet, lost *vfs.MemFS, b []byte, used [][2]int64, last int64) {
	t.Helper()
	f = newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	if rounds < 10 {
		f.bytes = 1 << 20 // in one area
	}
	f.start()
	for i := range rounds {
		f.do("aha+"[i%4], i%fleetLogs)
	}
	lost = f.mem.CrashClone(vfs.CrashCloneCfg{})
	jf, err := openJournalFile(lost, "/d/journal/"+journalName, false)
	if err != nil || jf.damage != nil {
		t.Fatal(err, jf.damage)
	}
	newest := uint64(0)
	for i, h := range jf.areas {
		at := int64(i) * jf.areaBytes
		used = append(used, [2]int64{at, at + journalHeaderLen})
		off := at + journalAlign
		for off < jf.ends[i] {
			block, err := jf.blockAt(i, off)
			if err != nil {
				t.Fatal(err)
			}
			used = append(used, [2]int64{off, off + int64(len(block))})
			if h.generation >= newest {
				newest, last = h.generation, off
			}
			off += int64(padded(len(block)))
		}
	}
	jf.close()
	f.stop()
	return f, lost, readFile(t, lost, "/d/journal/"+journalName), used, last
}

func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	file, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, fs vfs.FS, name string, b []byte) {
	t.Helper()
	if err := errors.Join(fs.Remove(name), writeFileSynced(fs, name, slices.Clone(b)), dirsync.Sync(fs, fs.PathDir(name))); err != nil {
		t.Fatal(err)
	}
}

// TestJournalBitFlips flips the bits of a journal in turn: what was acknowledged is there, or the journal or a log says that it is
// damaged. Only the last block has nothing behind it to prove that it was written, and its bytes are missing as a whole.
func TestJournalBitFlips(t *testing.T) {
	step := 499
	if stress {
		step = 1
	}
	for _, rounds := range []int{5, 24} {
		f, lost, b, used, last := journalImage(t, rounds)
		refused := 0
		for _, u := range used {
			for bit := u[0] * 8; bit < u[1]*8; bit += int64(step) {
				flipped := slices.Clone(b)
				flipped[bit/8] ^= 1 << (bit % 8)
				mem := lost.CrashClone(vfs.CrashCloneCfg{})
				writeFile(t, mem, "/d/journal/"+journalName, flipped)
				if !f.openDamaged(mem, u[0] == last) {
					refused++
				}
			}
		}
		if refused == 0 {
			t.Error("no flip was noticed")
		}
	}
}

// openDamaged starts a process on mem, whose journal is damaged. It must refuse, or have all that was acknowledged; without the last block, less
// of it. False: it refused.
func (f *fleet) openDamaged(mem *vfs.MemFS, last bool) bool {
	f.t.Helper()
	s, _, err := startJournaled(f.t, mem, f.bytes)
	var damage *ErrCorrupt
	if errors.As(err, &damage) && damage.Kind == KindJournal && damage.File == "/d/journal/"+journalName {
		return false
	}
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.stop()
	for i, w := range f.worlds {
		l, err := f.openLog(s, mem, i)
		if errors.As(err, &damage) {
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
		all := w.c.states
		if !last {
			all = all[len(all)-1:]
		}
		if !slices.ContainsFunc(all, func(s state) bool { return s.diff(l) == nil }) {
			f.t.Fatalf("log %d: [%d,%d], acknowledged %d", i, l.FirstIndex(), l.LastIndex(), all[len(all)-1].last())
		}
		closeLog(f.t, l)
	}
	return true
}

// TestJournalLastBlockOfFullArea: nothing stands behind it in its area; the blocks of the other area prove it.
func TestJournalLastBlockOfFullArea(t *testing.T) {
	mem := vfs.NewMem()
	makeFolders(t, mem)
	j, _, err := OpenJournal("/d/journal", JournalOptions{FS: mem, Bytes: MinJournalBytes, LogDir: fleetDir})
	if err != nil {
		t.Fatal(err)
	}
	defer j.closeFiles()
	var b block
	last := int64(0)
	for j.cur == 0 || j.areas[1].blocks == 0 {
		b.reset(j.room())
		if j.cur == 0 {
			last = j.areas[0].off
		}
		b.add(1, 2, 3, segmentHeaderLen, []byte("some bytes of a segment"))
		if err := j.write(&b, nil); err != nil {
			t.Fatal(err)
		}
	}
	name := "/d/journal/" + journalName
	whole := readFile(t, mem, name)
	for at := range int64(blockHeaderLen + blockEntryLen) {
		flipped := slices.Clone(whole)
		flipped[last+at] ^= 16
		writeFile(t, mem, name, flipped)
		_, _, err := OpenJournal("/d/journal", JournalOptions{FS: mem, Bytes: MinJournalBytes, LogDir: fleetDir})
		var damage *ErrCorrupt
		if !errors.As(err, &damage) || damage.Kind != KindJournal || damage.Offset != last {
			t.Fatalf("byte %d of the block at %d: %v", at, last, err)
		}
	}
}

// TestJournalAcceptLoss opens what a damaged and a lost journal leave, when told to.
func TestJournalAcceptLoss(t *testing.T) {
	f, lost, b, used, _ := journalImage(t, 8)
	b[used[2][0]+50] ^= 4
	for name, damage := range map[string]func(fs *vfs.MemFS){
		"damaged": func(fs *vfs.MemFS) { writeFile(t, fs, "/d/journal/"+journalName, b) },
		"empty":   func(fs *vfs.MemFS) { writeFile(t, fs, "/d/journal/"+journalName, nil) },
		"gone":    func(fs *vfs.MemFS) { _ = fs.RemoveAll("/d/journal") },
	} {
		t.Run(name, func(t *testing.T) {
			mem := lost.CrashClone(vfs.CrashCloneCfg{})
			damage(mem)
			for range 2 { // the damage is accepted once
				j, _, err := OpenJournal("/d/journal", JournalOptions{FS: mem, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
				if err != nil {
					t.Fatal(err)
				}
				s := NewSyncer(SyncerOptions{Journal: j})
				s.start()
				for i := range f.worlds {
					l, err := f.openLog(s, mem, i)
					var damage *ErrCorrupt
					if err == nil {
						closeLog(t, l)
					} else if !errors.As(err, &damage) || damage.Kind == KindJournalMissing {
						t.Error(err)
					}
				}
				s.stop()
			}
			if name == "damaged" && !bytes.Equal(readFile(t, mem, "/d/journal/"+journalName+".damaged"), b) {
				t.Error("the damaged journal was not kept")
			}
			if s, _, err := startJournaled(t, mem, f.bytes); err != nil {
				t.Error(err)
			} else {
				s.stop()
			}
		})
	}
}

// TestJournalAllocations: an append through the journal allocates nothing.
func TestJournalAllocations(t *testing.T) {
	mem := vfs.NewMem()
	makeFolders(t, mem)
	s, _, err := startJournaled(t, mem, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(fleetDir(0), 0, Options{FS: mem, Syncer: s, CacheBytes: 64 << 10, SegmentBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	es := batch(1, 1, 1, 100)
	done := make(chan error, 1)
	ack := func(err error) { done <- err }
	add := func() {
		es[0].Index = l.LastIndex() + 1
		if err := l.Append(es, nil, ack); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for range 500 {
		add()
	}
	if n := testing.AllocsPerRun(1000, add); n >= 1 {
		t.Errorf("%v allocations per append", n)
	}
	closeLog(t, l)
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// FuzzJournal: no bytes make the reader of a journal panic or run away, and whatever it finds valid stays in its place.
func FuzzJournal(f *testing.F) {
	_, _, b, _, _ := journalImage(f, 9)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := vfs.NewMem()
		if err := writeFileSynced(mem, "/J", b); err != nil {
			t.Fatal(err)
		}
		jf, err := openJournalFile(mem, "/J", false)
		if err != nil {
			jf.close()
			return
		}
		defer jf.close()
		for i := range jf.areas {
			if end := jf.ends[i]; jf.areas[i].id != 0 && (end < int64(i)*jf.areaBytes+journalAlign || end > int64(i+1)*jf.areaBytes) {
				t.Errorf("area %d ends at %d", i, end)
			}
		}
	})
}

// TestJournalInspected: verify and dump show a dead node's log as the next start finds it, and say when its journal is damaged or gone.
func TestJournalInspected(t *testing.T) {
	f, lost, b, used, _ := journalImage(t, 8)
	for i, w := range f.worlds {
		want, got := w.c.current(), 0
		r, err := inspect(t.Context(), lost, fleetDir(uint32(i)), func(it Item) error {
			if it.Entry != nil {
				got++
			}
			return nil
		})
		if err != nil || len(r.Damage) > 0 || r.Last != want.last() || got != len(want.entries) || r.HardState.Vote != want.hs.Vote || r.Journal == 0 {
			t.Errorf("log %d: %v, %+v, want last %d", i, err, r, want.last())
		}
	}
	b[used[2][0]+50] ^= 4
	for name, damage := range map[Kind]func(fs *vfs.MemFS){
		KindJournal:        func(fs *vfs.MemFS) { writeFile(t, fs, "/d/journal/"+journalName, b) },
		KindJournalMissing: func(fs *vfs.MemFS) { _ = fs.RemoveAll("/d/journal") },
	} {
		mem := lost.CrashClone(vfs.CrashCloneCfg{})
		damage(mem)
		r, err := inspect(t.Context(), mem, fleetDir(1), func(Item) error { return nil })
		if err != nil || !slices.ContainsFunc(r.Damage, func(e *ErrCorrupt) bool { return e.Kind == name }) {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
}
