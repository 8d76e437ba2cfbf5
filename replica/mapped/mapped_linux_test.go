package mapped

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// mapNew does what badger does for a new file.
func mapNew(t *testing.T, name string, size int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Munmap(data); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestMappedFilesHaveBlocks fails, above all, when golang.org/x/sys no longer goes through the function that Install replaces.
func TestMappedFilesHaveBlocks(t *testing.T) {
	Install()
	Install()
	const size = 8 << 20
	for name, want := range map[string]int64{"000001.sst": size, "00001.mem": FirstBytes, "000001.vlog": headerBytes} {
		if got := blocks(t, mapNew(t, name, size)); got < want || got > 2*want {
			t.Errorf("%s of %d bytes has blocks for %d, expected %d", name, size, got, want)
		}
	}
}

// TestReservedBlocksOutliveTheLength: badger takes an empty file for a new one and sets its length.
func TestReservedBlocksOutliveTheLength(t *testing.T) {
	Install()
	f, err := os.Create(filepath.Join(t.TempDir(), "00002.mem"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const reserved = 3 << 20
	if err := Reserve(f, reserved); err != nil {
		t.Fatal(err)
	}
	if Taken(f) {
		t.Error("an empty file counts as taken")
	}
	if spare, err := Spare(f); err != nil || spare < reserved {
		t.Errorf("%d bytes to spare, %v", spare, err)
	}
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, f); got < reserved || got > 2*reserved {
		t.Errorf("blocks for %d bytes after the length was set, reserved were %d", got, reserved)
	}
	if !Taken(f) {
		t.Error("a file with a length does not count as taken")
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if !Taken(f) {
		t.Error("a removed file does not count as taken")
	}
}

func TestZerosWhereSpaceCannotBeReserved(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const length = 3<<20 + 17
	if err := writeZeros(int(f.Fd()), length); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != length {
		t.Errorf("%v, %v", st.Size(), err)
	}
}
