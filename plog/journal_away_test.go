package plog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// moveFolder renames a folder, durably.
func moveFolder(t testing.TB, fs vfs.FS, from, to string) {
	t.Helper()
	if err := errors.Join(fs.Rename(from, to), dirsync.Sync(fs, fs.PathDir(from)), dirsync.Sync(fs, fs.PathDir(to))); err != nil {
		t.Fatal(err)
	}
}

// flipIn flips a bit of a file.
func flipIn(t testing.TB, fs vfs.FS, name string) {
	t.Helper()
	b := readFile(t, fs, name)
	b[len(b)/2] ^= 8
	writeFile(t, fs, name, b)
}

// letGo brings the journal back as before the folder of a partition is put away.
func letGo(t testing.TB, fs vfs.FS, partition uint32) JournalReport {
	t.Helper()
	j, report, err := OpenJournal("/d/journal", JournalOptions{FS: fs, Bytes: -1, LogDir: fleetDir, Partitions: fleetPartitions(), LetGo: []uint32{partition}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSyncer(SyncerOptions{Journal: j})
	s.stop()
	return report
}

// killedFleet is a fleet that was killed while its journal alone had what was acknowledged, and what is left of it.
func killedFleet(t testing.TB) (*fleet, fleetClone) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.bytes = 1 << 20 // no area is emptied
	f.start()
	for range 5 {
		f.do('+', 0)
	}
	cl := fleetClone{mem: f.mem.CrashClone(vfs.CrashCloneCfg{})}
	f.stop()
	for i, w := range f.worlds {
		cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
	}
	return f, cl
}

// goOn starts a process on which log i cannot be opened, and appends to log 0.
func (f *fleet) goOn(cl *fleetClone, i int) {
	f.t.Helper()
	s, report, err := startJournaled(f.t, cl.mem, f.bytes)
	if err != nil || report.Away == nil || report.Away.Partition != uint32(i) {
		f.t.Fatalf("%v, %+v", err, report.Away)
	}
	if l, err := f.openLog(s, cl.mem, i); err == nil {
		f.t.Fatalf("log %d opened: [%d,%d]", i, l.FirstIndex(), l.LastIndex())
	}
	l, err := f.openLog(s, cl.mem, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	c := f.worlds[0].c
	now := c.states[len(c.states)-1]
	es := batch(now.last()+1, 2, now.lastTerm()+1, 500)
	mustAppend(f.t, l, es, nil)
	now.entries = slices.Clone(now.entries)
	now.append(es, nil)
	c.states = append(c.states, now)
	cl.from[0], cl.to[0] = len(c.states)-1, len(c.states)-1
	closeLog(f.t, l)
	s.stop()
}

// refusedLog puts the manifest of another log over that of partition 1, which lacks batches that its journal had: that one is elsewhere, or has
// given them up.
func refusedLog(elsewhere bool) func(testing.TB, vfs.FS) {
	return func(t testing.TB, fs vfs.FS) {
		m, err := readManifest(fs, fleetDir(1))
		if err != nil {
			t.Fatal(err)
		}
		m.id++
		if elsewhere {
			m.journal++
		} else if err := writeFileSynced(fs, "/d/journal/"+forgottenName, forgotten{m.id}.encode(m.journal)); err != nil {
			t.Fatal(err)
		}
		if _, err := writeManifest(fs, fleetDir(1), m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalDamagedLog: the journal keeps what it has of a log whose manifest or segment is not what was written, or that is in the place of another
// one, or in whose place is one that is refused, until that is mended. The others go on.
func TestJournalDamagedLog(t *testing.T) {
	manifest, segment := fleetDir(1)+"/"+manifestName, fleetDir(1)+"/"+segmentName(1)
	remove := func(name string) func(testing.TB, vfs.FS) {
		return func(t testing.TB, fs vfs.FS) {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]struct {
		file string
		do   func(testing.TB, vfs.FS)
	}{
		"manifest flipped": {manifest, func(t testing.TB, fs vfs.FS) { flipIn(t, fs, manifest) }},
		"manifest empty":   {manifest, func(t testing.TB, fs vfs.FS) { writeFile(t, fs, manifest, nil) }},
		"manifest missing": {manifest, remove(manifest)},
		"another's": {manifest, func(t testing.TB, fs vfs.FS) {
			writeFile(t, fs, manifest, readFile(t, fs, fleetDir(2)+"/"+manifestName))
		}},
		"another journal's": {manifest, refusedLog(true)},
		"given up":          {manifest, refusedLog(false)},
		"segment missing":   {segment, remove(segment)},
		"segment truncated": {segment, func(t testing.TB, fs vfs.FS) { writeFile(t, fs, segment, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			f, cl := killedFleet(t)
			whole := readFile(t, cl.mem, damage.file)
			damage.do(t, cl.mem)
			for range 2 {
				f.goOn(&cl, 1)
				cl.mem = cl.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: newRand()})
			}
			_ = cl.mem.Remove(damage.file)
			if err := writeFileSynced(cl.mem, damage.file, whole); err != nil {
				t.Fatal(err)
			}
			f.verify(cl)
		})
	}
}

// TestJournalNotNeeded: the journal does not wait for a log that was closed, whatever happens to its folder's files after that.
func TestJournalNotNeeded(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.bytes = 1 << 20
	f.start()
	for range 3 {
		f.do('+', 0)
	}
	closeLog(t, f.worlds[1].l)
	lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
	f.stop()
	if err := lost.Remove(fleetDir(1) + "/" + segmentName(1)); err != nil {
		t.Fatal(err)
	}
	s, report, err := startJournaled(t, lost, f.bytes)
	if err != nil || report.Away != nil || report.Entries == 0 || report.Skipped == 0 {
		t.Fatalf("%v, %+v", err, report)
	}
	s.stop()
}

// TestJournalLetGo: a log whose folder is put away is whole when it comes back, though the journal waits for another one meanwhile; one that
// cannot be read then is refused when it comes back. The journal waits for neither.
func TestJournalLetGo(t *testing.T) {
	manifest := fleetDir(1) + "/" + manifestName
	for _, damaged := range []bool{false, true} {
		for _, other := range []bool{false, true} {
			t.Run(fmt.Sprintf("damaged %v, another away %v", damaged, other), func(t *testing.T) {
				f, cl := killedFleet(t)
				whole := readFile(t, cl.mem, manifest)
				if damaged {
					flipIn(t, cl.mem, manifest)
				}
				if other {
					moveFolder(t, cl.mem, fleetDir(2), "/d/aside")
				}
				letGo(t, cl.mem, 1)
				moveFolder(t, cl.mem, fleetDir(1), "/d/dropped")
				s, report, err := startJournaled(t, cl.mem, f.bytes)
				if err != nil || (report.Away != nil) != other || other && report.Away.Partition != 2 {
					t.Fatalf("%v, %+v", err, report.Away)
				}
				s.stop()
				if other {
					moveFolder(t, cl.mem, "/d/aside", fleetDir(2))
				}
				if s, report, err = startJournaled(t, cl.mem.CrashClone(vfs.CrashCloneCfg{}), f.bytes); err != nil || report.Away != nil {
					t.Fatalf("waits for a log that was let go: %v, %+v", err, report.Away)
				}
				s.stop()
				moveFolder(t, cl.mem, "/d/dropped", fleetDir(1))
				if !damaged {
					f.verify(cl)
					return
				}
				writeFile(t, cl.mem, manifest, whole)
				for range 2 {
					if s, _, err = startJournaled(t, cl.mem, f.bytes); err != nil {
						t.Fatal(err)
					}
					var lost *ErrCorrupt
					if _, err := f.openLog(s, cl.mem, 1); !errors.As(err, &lost) || lost.Kind != KindJournalMissing {
						t.Errorf("opened without what the journal had: %v", err)
					}
					s.stop()
					letGo(t, cl.mem, 1) // it is not whole by that
				}
				r, err := inspect(t.Context(), cl.mem, fleetDir(1), func(Item) error { return nil })
				if err != nil || !slices.ContainsFunc(r.Damage, func(e *ErrCorrupt) bool { return e.Kind == KindJournalMissing }) {
					t.Errorf("inspected: %v, %+v", err, r)
				}
			})
		}
	}
}

// TestJournalPutBack: a journal that comes back after its loss was accepted does not put old bytes over what was acknowledged since.
func TestJournalPutBack(t *testing.T) {
	for _, lost := range []string{"gone", "damaged"} {
		t.Run(lost, func(t *testing.T) {
			f, cl := killedFleet(t)
			name := "/d/journal/" + journalName
			old := readFile(t, cl.mem, name)
			if lost == "gone" {
				if err := cl.mem.RemoveAll("/d/journal"); err != nil {
					t.Fatal(err)
				}
			} else {
				b := slices.Clone(old)
				b[journalAlign+blockHeaderLen] ^= 1
				writeFile(t, cl.mem, name, b)
			}
			j, _, err := OpenJournal("/d/journal", JournalOptions{FS: cl.mem, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
			if err != nil {
				t.Fatal(err)
			}
			s := NewSyncer(SyncerOptions{Journal: j})
			s.start()
			for i, w := range f.worlds {
				l, err := f.openLog(s, cl.mem, i)
				if err != nil {
					t.Fatal(err)
				}
				var now state
				for _, now = range w.c.states {
					if now.diff(l) == nil {
						break
					}
				}
				now.entries = slices.Clone(now.entries)
				es := batch(now.last()+1, 1, 9, 5000)
				mustAppend(t, l, es, nil)
				now.append(es, nil)
				w.c.states = []state{now}
				cl.from[i], cl.to[i] = 0, 0
				if i == 0 {
					closeLog(t, l) // it needs no journal any more
					continue
				}
				defer l.Close()
			}
			back := cl.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: newRand()})
			s.stop()
			writeFile(t, back, name, old)
			if s, _, err = startJournaled(t, back, f.bytes); err != nil {
				t.Fatal(err)
			}
			for i, w := range f.worlds {
				l, err := f.openLog(s, back, i)
				var missing *ErrCorrupt
				switch {
				case err == nil:
					if err := w.c.states[0].diff(l); err != nil {
						t.Errorf("log %d: %v", i, err)
					}
					closeLog(t, l)
				case i == 0 || !errors.As(err, &missing) || missing.Kind != KindJournalMissing:
					t.Errorf("log %d: %v", i, err)
				}
			}
			s.stop()
		})
	}
}

// TestJournalForgottenFile: the list of what was given up is checked like the journal.
func TestJournalForgottenFile(t *testing.T) {
	f, cl := killedFleet(t)
	flipIn(t, cl.mem, fleetDir(1)+"/"+manifestName)
	if report := letGo(t, cl.mem, 1); report.Forgotten != 1 {
		t.Fatalf("%+v", report)
	}
	name := "/d/journal/" + forgottenName
	whole := readFile(t, cl.mem, name)
	for bit := range len(whole) * 8 {
		b := slices.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		writeFile(t, cl.mem, name, b)
		var damage *ErrCorrupt
		if _, _, err := startJournaled(t, cl.mem, f.bytes); !errors.As(err, &damage) || damage.Kind != KindJournal || damage.File != name {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
	for range 2 {
		j, _, err := OpenJournal("/d/journal", JournalOptions{FS: cl.mem, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
		if err != nil {
			t.Fatal(err)
		}
		s := NewSyncer(SyncerOptions{Journal: j})
		s.start()
		l, err := f.openLog(s, cl.mem, 0)
		if err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		s.stop()
	}
	f.verify0(cl, 0)
}

// verify0 is verify of one log alone.
func (f *fleet) verify0(cl fleetClone, i int) {
	f.t.Helper()
	s, _, err := startJournaled(f.t, cl.mem, f.bytes)
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := f.openLog(s, cl.mem, i)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.worlds[i].c.states[cl.to[i]].diff(l); err != nil {
		f.t.Error(err)
	}
	closeLog(f.t, l)
	s.stop()
}

// FuzzForgotten: no bytes make the reader of the list panic, and what it takes is what is written again.
func FuzzForgotten(f *testing.F) {
	f.Add(forgotten{1, 2, 3}.encode(9))
	f.Add(forgotten{}.encode(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, journal, version, ok := decodeForgotten(b)
		if ok && version == formatVersion && string(list.encode(journal)) != string(b) {
			t.Errorf("%v of %d", list, journal)
		}
	})
}
