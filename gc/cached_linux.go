package gc

import "golang.org/x/sys/unix"

// dropCached lets the next read of a synced file ask the disk, as far as the system allows; fd may be none.
func dropCached(fd uintptr) {
	if fd != ^uintptr(0) {
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED)
	}
}
