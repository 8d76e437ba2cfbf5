package plog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// shelf is a data folder whose logs' folders are taken away, damaged, mended, dropped, replaced and put back while no process runs.
type shelf struct {
	t     *testing.T
	mem   *vfs.MemFS
	rng   *rand.Rand
	kept  [fleetLogs][]*shelved // folders of a partition; those that are not in place have a name
	made  int
	trace string
}

// shelved is a folder of a log.
type shelved struct {
	w      *world
	aside  string // where it is, empty: in place
	file   string // damaged, empty: none
	whole  []byte // what it held before
	atRisk bool   // another log was in its place, or it was let go, while the journal may have had batches of it
}

func (s *shelf) inPlace(i int) *shelved {
	for _, k := range s.kept[i] {
		if k.aside == "" {
			return k
		}
	}
	return nil
}

func (s *shelf) note(format string, args ...any) { s.trace += fmt.Sprintf(format, args...) + "; " }

// disturb changes what is in the place of partition i.
func (s *shelf) disturb(i int) {
	k := s.inPlace(i)
	switch what := s.rng.IntN(5); {
	case k != nil && k.file != "" && what < 3:
		s.note("mend %d", i)
		writeFile(s.t, s.mem, k.file, k.whole)
		k.file = ""
	case k != nil && k.file == "" && what == 0:
		k.file = fleetDir(uint32(i)) + "/" + manifestName
		s.note("damage %d", i)
		k.whole = readFile(s.t, s.mem, k.file)
		flipIn(s.t, s.mem, k.file)
	case k != nil && what < 4:
		if what == 3 {
			s.note("let go %d", i)
			letGo(s.t, s.mem, uint32(i))
			k.atRisk = k.atRisk || k.file != ""
		}
		s.made++
		k.aside = fmt.Sprintf("/d/aside%d", s.made)
		s.note("take %d to %s", i, k.aside)
		moveFolder(s.t, s.mem, fleetDir(uint32(i)), k.aside)
		if k.file != "" {
			k.file = k.aside + "/" + manifestName
		}
	case k == nil && what < 3 && len(s.kept[i]) > 0:
		k = s.kept[i][s.rng.IntN(len(s.kept[i]))]
		s.note("put %s back to %d", k.aside, i)
		moveFolder(s.t, s.mem, k.aside, fleetDir(uint32(i)))
		k.aside = ""
		if k.file != "" {
			k.file = fleetDir(uint32(i)) + "/" + manifestName
		}
	}
}

// run starts a process, which uses what it can open, and ends it.
func (s *shelf) run() {
	t := s.t
	syncer, report, err := startJournaled(t, s.mem, MinJournalBytes)
	if err != nil {
		t.Fatalf("%s: %v", s.trace, err)
	}
	s.note("start away=%v forgotten=%d", report.Away != nil, report.Forgotten)
	var open []*world
	for i := range s.kept {
		k := s.inPlace(i)
		if k == nil && s.rng.IntN(3) == 0 {
			s.note("make %d", i)
			k = &shelved{w: newWorld(t, s.mem, state{}, nil, 0, s.rng)}
			s.kept[i] = append(s.kept[i], k)
		}
		if k == nil {
			continue
		}
		for _, other := range s.kept[i] {
			other.atRisk = other.atRisk || other != k
		}
		k.w.fs = s.mem
		o := k.w.opts
		o.FS, o.Syncer = s.mem, syncer
		l, err := Open(fleetDir(uint32(i)), uint32(i), o)
		if s.refused(k, err) {
			s.note("%d refused", i)
			if k.file == "" {
				s.kept[i] = slices.DeleteFunc(s.kept[i], func(x *shelved) bool { return x == k })
				dir := fleetDir(uint32(i))
				if err := errors.Join(s.mem.RemoveAll(dir), dirsync.Sync(s.mem, s.mem.PathDir(dir))); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		if err == nil && k.file != "" {
			err = errors.New("opened though damaged")
		}
		if err == nil {
			now := k.w.c.current()
			err = now.diff(l)
		}
		if err != nil {
			t.Fatalf("%slog %d: %v", s.trace, i, err)
		}
		k.atRisk = false
		k.w.l, k.w.openLog = l, func(fs vfs.FS) (*Log, error) { return Open(fleetDir(uint32(i)), uint32(i), o) }
		open = append(open, k.w)
	}
	for range s.rng.IntN(12) {
		if len(open) > 0 {
			open[s.rng.IntN(len(open))].do("aaahAtTrRoz"[s.rng.IntN(11)])
		}
	}
	percent := []int{0, 50, 100}[s.rng.IntN(3)]
	lost := s.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: s.rng})
	for _, w := range open {
		closeLog(t, w.l)
	}
	syncer.stop()
	if s.rng.IntN(3) > 0 {
		s.note("kill %d%%", percent)
		s.mem = lost
	} else {
		s.note("stop")
	}
}

// refused says whether err is right about a log.
func (s *shelf) refused(k *shelved, err error) bool {
	var damage *ErrCorrupt
	if !errors.As(err, &damage) {
		return false
	}
	return k.file != "" && damage.Kind == KindManifest || k.file == "" && k.atRisk && damage.Kind == KindJournalMissing
}

// TestJournalAwayRandom: whatever happens to the folders of logs between kills, what was acknowledged is in every log that opens. One may be refused
// for the sake of the journal only if another was in its place, or if it was let go while damaged.
func TestJournalAwayRandom(t *testing.T) {
	runs := 60
	if stress {
		runs = 6000
	}
	starts, rng := 0, rand.New(rand.NewPCG(31, 32))
	for range runs {
		s := &shelf{t: t, mem: vfs.NewCrashableMem(), rng: rng}
		makeFolders(t, s.mem)
		for range 12 {
			s.run()
			starts++
			for i := range s.kept {
				if rng.IntN(2) == 0 {
					s.disturb(i)
				}
			}
		}
	}
	t.Logf("%d starts", starts)
}
