package replica

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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

// TestMemtablesFillOneAfterAnother: partitions that are written evenly fill their memtables at different times, however many they are.
func TestMemtablesFillOneAfterAnother(t *testing.T) {
	for _, partitions := range []uint32{2, 8, 64, 1000} {
		sizes := make([]int64, partitions)
		for id := range partitions {
			sizes[id] = memTableBytes(minMemTableBytes, id)
		}
		slices.Sort(sizes)
		if least := sizes[0]; least < minMemTableBytes*7/8 || sizes[partitions-1] > minMemTableBytes {
			t.Errorf("%d partitions have memtables of %d to %d bytes", partitions, least, sizes[partitions-1])
		}
		for i := range sizes[1:] {
			if apart := sizes[i+1] - sizes[i]; apart < minMemTableBytes/8/int64(3*partitions) {
				t.Errorf("two of %d partitions have memtables that are only %d bytes apart", partitions, apart)
			}
		}
	}
}

// TestLeastMemtable: badger refuses memtables that are too small for what a partition writes.
func TestLeastMemtable(t *testing.T) {
	db, mem, err := openDB(t.TempDir(), &Options{}, minMemTableBytes*7/8, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	must(t, closeDB(db, mem))
}
