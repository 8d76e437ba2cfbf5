package replica

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestListOfTablesIsLookedAtNowAndThen: near the end of a memtable room in the list of tables is looked for again and again, but not
// with each write, which would cost more than the write.
func TestListOfTablesIsLookedAtNowAndThen(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "MANIFEST")
	for _, name := range []string{list, filepath.Join(dir, "00001.mem")} {
		must(t, os.WriteFile(name, nil, 0o644))
	}
	synctest.Test(t, func(t *testing.T) {
		const table = 1 << 20
		m, err := openMemFiles(dir, table)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		write := func(bytes int64) error {
			err := m.reserve(bytes)
			if err == nil {
				m.done(bytes)
			}
			return err
		}
		must(t, os.Remove(list))
		time.Sleep(2 * manifestEvery)
		if err := write(table / 2); err != nil {
			t.Errorf("the list was looked at in the middle of a memtable: %v", err)
		}
		if write(table/2) == nil {
			t.Error("the list was not looked at before the next memtable")
		}
		must(t, os.WriteFile(list, nil, 0o644))
		must(t, write(table/2))
		must(t, os.Remove(list))
		if err := write(100); err != nil {
			t.Errorf("the list was looked at again at once: %v", err)
		}
		time.Sleep(manifestEvery)
		if write(100) == nil {
			t.Error("the list was not looked at again")
		}
		must(t, os.WriteFile(list, nil, 0o644))
		must(t, write(100))
	})
}
