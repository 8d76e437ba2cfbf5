//go:build !linux && !darwin

package gc

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// allocated is the file's length: this system does not tell more.
func allocated(st vfs.FileInfo) int64 { return st.Size() }

// statfs asks the file system of path for its space; inodes are unknown here.
func statfs(path string) (Usage, error) {
	u, err := vfs.Default.GetDiskUsage(path)
	if err != nil {
		return Usage{}, fmt.Errorf("disk usage of %s: %w", path, err)
	}
	return Usage{TotalBytes: u.TotalBytes, FreeBytes: u.AvailBytes}, nil
}
