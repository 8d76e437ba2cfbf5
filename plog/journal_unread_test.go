package plog

import (
	"errors"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// badSector lets reads of a file fail from an offset on.
type badSector struct {
	path string
	from int64
	link bool // fails, too
}

func (b *badSector) String() string { return "bad sector" }

// MaybeError implements errorfs.Injector.
func (b *badSector) MaybeError(op errorfs.Op) error {
	if b.link && op.Kind == errorfs.OpLink {
		return syscall.EPERM
	}
	if op.Path == b.path && (op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt && op.Offset >= b.from) {
		return syscall.EIO
	}
	return nil
}

// TestJournalUnreadable: a journal, or its list of what was given up, on a bad sector is refused with the reason, and is like a damaged one when loss is
// accepted: the blocks before it are brought back. So it is where files cannot be linked.
func TestJournalUnreadable(t *testing.T) {
	f, lost, _, used, _ := journalImage(t, 8)
	open := func(bad *badSector, accept bool) (*vfs.MemFS, JournalReport, error) {
		mem := lost.CrashClone(vfs.CrashCloneCfg{})
		if err := writeFileSynced(mem, "/d/journal/"+forgottenName, forgotten{1}.encode(2)); err != nil {
			t.Fatal(err)
		}
		j, report, err := OpenJournal("/d/journal", JournalOptions{FS: errorfs.Wrap(mem, bad), Bytes: f.bytes, LogDir: fleetDir, AcceptLoss: accept})
		if err == nil {
			j.close()
		}
		return mem, report, err
	}
	for name, bad := range map[string]*badSector{
		"first header": {path: "/d/journal/" + journalName, link: true},
		"third block":  {path: "/d/journal/" + journalName, from: used[2][0]},
		"list":         {path: "/d/journal/" + forgottenName},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := open(bad, false); !errors.Is(err, syscall.EIO) {
				t.Errorf("not refused: %v", err)
			}
			mem, report, err := open(bad, true)
			if err != nil || report.Damage == nil {
				t.Fatalf("%v, %+v", err, report)
			}
			if name == "third block" && report.Blocks == 0 {
				t.Error("nothing brought back")
			}
			if s, _, err := startJournaled(t, mem, f.bytes); err != nil {
				t.Errorf("the loss was not accepted for good: %v", err)
			} else {
				s.stop()
			}
		})
	}
}
