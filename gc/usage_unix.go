//go:build linux || darwin

package gc

import (
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// allocated is what a file takes on the disk; badger's files are sparse.
func allocated(st vfs.FileInfo) int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks * 512
	}
	return st.Size()
}

// statfs asks the file system of path for its space.
func statfs(path string) (Usage, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return Usage{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	return Usage{TotalBytes: st.Blocks * size, FreeBytes: uint64(st.Bavail) * size,
		TotalInodes: st.Files, FreeInodes: uint64(st.Ffree)}, nil
}
