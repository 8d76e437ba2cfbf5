package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"replicanode/internal/fixture"
)

// onSmallDisk copies a data folder to a file system of its own, which only the superuser can make, and fills that to the last byte.
func onSmallDisk(t *testing.T, from string) string {
	t.Helper()
	disk := fixture.SmallDisk(t, 128<<20)
	dir := filepath.Join(disk, "data")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	fixture.FillDisk(t, filepath.Join(disk, "filler"))
	return dir
}

// TestDropOnAFullDisk: the reserve of the replica's own log is enough to drop it, after a kill and after a stop. Without one the error says what to do.
func TestDropOnAFullDisk(t *testing.T) {
	killed := killedNode(t)
	stopped := filepath.Join(t.TempDir(), "stopped")
	_, stop := runNode(t, stopped, 2)
	stop()
	for name, from := range map[string]string{"killed": killed, "stopped": stopped} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(logOf(from, 1), "BALLAST"), make([]byte, 64<<10), 0o644); err != nil {
				t.Fatal(err)
			}
			dir := onSmallDisk(t, from)
			succeeds(t, []string{"dropped as 0001-"}, "replica", "drop", "--partition", "1", "--data-dir", dir)
		})
		t.Run(name+" without reserve", func(t *testing.T) {
			if err := os.Remove(filepath.Join(logOf(from, 1), "BALLAST")); err != nil {
				t.Fatal(err)
			}
			dir := onSmallDisk(t, from)
			fails(t, []string{dir, "no space left on device; partition 1 was not dropped: free some 64 KiB on that disk and drop it again"},
				"replica", "drop", "--partition", "1", "--data-dir", dir)
			if err := os.Truncate(filepath.Join(filepath.Dir(dir), "filler"), 1<<20); err != nil {
				t.Fatal(err)
			}
			succeeds(t, []string{"dropped as 0001-"}, "replica", "drop", "--partition", "1", "--data-dir", dir)
		})
	}
}

// TestDropOnAReadOnlyDisk names the file, and says that the disk has to be mounted for writing.
func TestDropOnAReadOnlyDisk(t *testing.T) {
	dir := onSmallDisk(t, killedNode(t))
	disk := filepath.Dir(dir)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("a file system cannot be mounted anew: %v", err)
	}
	fails(t, []string{"--data-dir " + dir, "LOCK: read-only file system; mount its disk for writing"}, "replica", "drop", "--partition", "1", "--data-dir", dir)
	if _, err := os.Stat(logOf(dir, 1)); err != nil {
		t.Error(err)
	}
}
