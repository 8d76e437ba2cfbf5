package plog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// atJournal calls before each write to the journal.
type atJournal func()

func (atJournal) String() string { return "at journal" }

// MaybeError implements errorfs.Injector.
func (f atJournal) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpFileWriteAt && op.Path == "/d/journal/"+journalName {
		f()
	}
	return nil
}

// TestJournalForgetsFirst: what the journal gives up is in its list, whatever a crash leaves, before the journal is emptied.
func TestJournalForgetsFirst(t *testing.T) {
	_, cl := killedFleet(t)
	flipIn(t, cl.mem, fleetDir(1)+"/"+manifestName)
	var left []*vfs.MemFS
	letGo(t, errorfs.Wrap(cl.mem, atJournal(func() { left = append(left, cl.mem.CrashClone(vfs.CrashCloneCfg{})) })), 1)
	if len(left) == 0 {
		t.Fatal("the journal was not emptied")
	}
	for i, mem := range left {
		if list, _, _, ok := decodeForgotten(readFile(t, mem, "/d/journal/"+forgottenName)); !ok || len(list) != 1 {
			t.Errorf("write %d: %v, %v", i, list, ok)
		}
	}
}

// TestJournalForgetsTheOldest: a full list leaves out its oldest logs, also at the next start.
func TestJournalForgetsTheOldest(t *testing.T) {
	mem := vfs.NewCrashableMem()
	makeFolders(t, mem)
	o := JournalOptions{FS: mem, Bytes: MinJournalBytes, LogDir: fleetDir}
	j, _, err := OpenJournal("/d/journal", o)
	if err != nil {
		t.Fatal(err)
	}
	logs := make([]lostLog, maxForgotten+1)
	for i := range logs {
		logs[i].id = uint64(i + 1)
	}
	for _, l := range [][]lostLog{logs[:maxForgotten], logs[maxForgotten:]} {
		if err := j.forget(l); err != nil {
			t.Fatal(err)
		}
	}
	j.close()
	if j, _, err = OpenJournal("/d/journal", o); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if len(j.forgotten) != maxForgotten || j.forgotten.has(1) || !j.forgotten.has(2) || !j.forgotten.has(maxForgotten+1) {
		t.Errorf("%d logs, the first %d", len(j.forgotten), j.forgotten[0])
	}
}
