// Package dirsync makes the names in a folder durable: a file that was created, renamed or removed is so after a power loss only
// when its folder was synced, too.
package dirsync

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Sync makes the names in dir durable.
func Sync(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("close folder %s: %w", dir, err)
	}
	return nil
}
