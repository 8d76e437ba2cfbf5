package plog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const fleetJournal = "/d/journal/" + journalName

// staleError returns the refusal of an older copy of the journal, nil for another outcome.
func staleError(err error) *ErrCorrupt {
	var e *ErrCorrupt
	if errors.As(err, &e) && e.Kind == KindJournalStale {
		return e
	}
	return nil
}

// TestJournalOlderCopy: a copy of the journal from any earlier time, put in the place of the one that alone had the last batches, is refused as soon as a manifest
// knows of more. Nothing is changed then, and the right one brings everything back.
func TestJournalOlderCopy(t *testing.T) {
	for name, since := range map[string]string{
		"of the same turn, a log replaced its suffix": "++T",
		"of the same turn, a log released":            "++rR",
		"of an earlier turn":                          "++++++++++++++++++++++++++++++++++++++++T",
		"from before a stop":                          "P++",
		"from before a kill":                          "K++",
		"from before two kills":                       "K+K+",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
			f.start()
			for range 3 {
				f.do('+', 0)
			}
			older := readFile(t, f.mem, fleetJournal)
			for i := range len(since) {
				f.do(since[i], 1)
			}
			f.do('a', 0) // which the journal alone has
			cl := fleetClone{mem: f.mem.CrashClone(vfs.CrashCloneCfg{})}
			f.stop()
			for i, w := range f.worlds {
				cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
			}
			newer := readFile(t, cl.mem, fleetJournal)
			writeFile(t, cl.mem, fleetJournal, older)
			for range 3 { // it does not pass by being tried again
				_, _, err := startJournaled(t, cl.mem, f.bytes)
				if e := staleError(err); e == nil || e.File != fleetJournal || e.Known.Generation < e.Found.Generation || e.Known == e.Found {
					t.Fatalf("not refused: %v", err)
				}
			}
			r, err := inspect(t.Context(), cl.mem, fleetDir(1), func(Item) error { return nil })
			if err != nil || len(r.Damage) != 1 || r.Damage[0].Kind != KindJournalStale {
				t.Errorf("inspected: %v, %+v", err, r.Damage)
			}
			accepted := cl.mem.CrashClone(vfs.CrashCloneCfg{})
			f.acceptOlder(accepted, newer)
			writeFile(t, cl.mem, fleetJournal, newer)
			f.verify(cl)
		})
	}
}

// acceptOlder starts a process on mem that accepts what the older copy lacks, and puts the newer journal back, which is too late then.
func (f *fleet) acceptOlder(mem *vfs.MemFS, newer []byte) {
	f.t.Helper()
	j, report, err := OpenJournal("/d/journal", JournalOptions{FS: mem, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
	if err != nil || report.Damage == nil || report.Damage.Kind != KindJournalStale {
		f.t.Fatalf("not accepted: %v, %+v", err, report)
	}
	s := NewSyncer(SyncerOptions{Journal: j})
	s.start()
	for i := range 2 { // the third one is left to the next start
		l, err := f.openLog(s, mem, i)
		if err != nil {
			f.t.Fatal(err)
		}
		closeLog(f.t, l)
	}
	s.stop()
	for _, back := range []bool{false, true} {
		if back {
			writeFile(f.t, mem, fleetJournal, newer)
		}
		s, _, err := startJournaled(f.t, mem, f.bytes)
		if err != nil {
			f.t.Fatalf("accepted, then refused: %v", err)
		}
		for i := range f.worlds {
			l, err := f.openLog(s, mem, i)
			var missing *ErrCorrupt
			switch {
			case err == nil && (i < 2 || back):
				closeLog(f.t, l)
			case i < 2 || back || !errors.As(err, &missing) || missing.Kind != KindJournalMissing:
				f.t.Errorf("log %d: %v", i, err)
			}
		}
		s.stop()
	}
}

// TestJournalOlderCopyRandom takes copies of the journal all through random workloads with kills and stops. Each of them is refused, or brings back everything
// that was acknowledged, unless no manifest was written since the journal went on behind the copy.
func TestJournalOlderCopyRandom(t *testing.T) {
	runs := 30
	if stress {
		runs = 3000
	}
	rng := rand.New(rand.NewPCG(41, 42))
	refused, whole, unknown := 0, 0, 0
	for range runs {
		f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, rng)
		f.start()
		type taken struct {
			journal []byte
			at      string
			behind  bool // the journal went on
			known   bool // and a manifest was written since
		}
		var copies []*taken
		trace := ""
		written := func() (n uint64) {
			for i := range uint32(fleetLogs) {
				m, err := readManifest(f.mem, fleetDir(i))
				if err != nil {
					t.Fatal(err)
				}
				n += m.generation
			}
			return n
		}
		for range 1 + rng.IntN(60) {
			if rng.IntN(4) == 0 {
				copies = append(copies, &taken{journal: readFile(t, f.mem, fleetJournal), at: trace})
			}
			before, manifests := readFile(t, f.mem, fleetJournal), written()
			op, on := "aah+++++TrRKP"[rng.IntN(13)], rng.IntN(fleetLogs)
			trace += fmt.Sprintf("%c%d", op, on)
			f.do(op, on)
			for _, c := range copies {
				c.known = c.known || c.behind && written() != manifests || op == 'P' || op == 'K'
				c.behind = c.behind || !bytes.Equal(readFile(t, f.mem, fleetJournal), before)
			}
		}
		cl := fleetClone{mem: f.mem.CrashClone(vfs.CrashCloneCfg{})}
		f.stop()
		for i, w := range f.worlds {
			cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
		}
		for _, c := range copies {
			at := cl
			at.op = trace + " with the journal of " + c.at
			at.mem = cl.mem.CrashClone(vfs.CrashCloneCfg{})
			writeFile(t, at.mem, fleetJournal, c.journal)
			s, _, err := startJournaled(t, at.mem.CrashClone(vfs.CrashCloneCfg{}), f.bytes)
			switch {
			case staleError(err) != nil:
				refused++
				continue
			case err != nil:
				t.Fatalf("%s: %v", at.op, err)
			}
			s.stop()
			if c.behind && !c.known {
				unknown++
				continue
			}
			whole++
			f.verify(at)
		}
		f.verify(cl)
	}
	t.Logf("%d refused, %d whole, %d unknown", refused, whole, unknown)
	if refused == 0 || whole == 0 {
		t.Error("tests nothing")
	}
}
