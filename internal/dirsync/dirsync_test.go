package dirsync

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestSync: a new file is there after a power loss when its folder was synced, and not otherwise.
func TestSync(t *testing.T) {
	for _, synced := range []bool{true, false} {
		mem := vfs.NewCrashableMem()
		if err := errors.Join(mem.MkdirAll("d", 0o755), Sync(mem, "")); err != nil {
			t.Fatal(err)
		}
		f, err := mem.Create("d/f", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if synced {
			if err := Sync(mem, "d"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := mem.CrashClone(vfs.CrashCloneCfg{}).Stat("d/f"); (err == nil) != synced {
			t.Errorf("synced %v: %v", synced, err)
		}
	}
}

func TestErrorsOfSync(t *testing.T) {
	if err := Sync(vfs.NewMem(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	broken := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync {
			return errorfs.ErrInjected
		}
		return nil
	}))
	if err := Sync(broken, ""); !errors.Is(err, errorfs.ErrInjected) {
		t.Errorf("a sync that fails: %v", err)
	}
}
