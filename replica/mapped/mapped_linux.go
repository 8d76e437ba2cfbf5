package mapped

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "unsafe" // for linkname

	"golang.org/x/sys/unix"
)

// mmapper begins like the type of unix.mapper, which is not exported. TestLayout compares it with the source of the golang.org/x/sys
// that is built in: when it goes red after an update, this type must follow before anything else is done with that version.
type mmapper struct {
	sync.Mutex
	_    map[*byte][]byte
	mmap func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error)
}

// mapper is what unix.Mmap calls the system through.
//
//go:linkname mapper golang.org/x/sys/unix.mapper
var mapper *mmapper

var install sync.Once

// Install makes every file real that is mapped for writing from now on, in the whole process. It may be called many times.
func Install() {
	install.Do(func() {
		mapper.Lock()
		defer mapper.Unlock()
		system := mapper.mmap
		mapper.mmap = func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error) {
			if fd >= 0 && prot&unix.PROT_WRITE != 0 && flags&unix.MAP_SHARED != 0 {
				if err := makeReal(fd, int64(length)); err != nil {
					return 0, err
				}
			}
			return system(addr, length, prot, flags, fd, offset)
		}
	})
}

// makeReal gives a file without blocks those that will be written. A file that cannot have them is removed: nothing was ever in it,
// and badger would leave one behind at each attempt.
func makeReal(fd int, length int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Blocks > 0 {
		return nil
	}
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		name = ""
	}
	switch filepath.Ext(name) {
	case ".mem":
		length = min(length, FirstBytes)
	case ".vlog":
		length = min(length, headerBytes)
	}
	if filepath.Ext(name) == ".sst" && compacting() {
		return awaitRoom(fd, filepath.Dir(name), st.Size, length)
	}
	if err := allocate(fd, 0, length); err != nil {
		_ = unix.Ftruncate(fd, 0)
		if name != "" {
			_ = os.Remove(name)
		}
		return err
	}
	return nil
}

// compacting is whether the caller makes a table of a compaction.
func compacting() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, compaction) {
			return true
		}
		if !more {
			return false
		}
	}
}

// awaitRoom gives a table of a compaction its blocks, however long that takes. It keeps none while it waits, and leaves some of the disk to
// what gives space back: memtables that become tables, so that logs can be released.
func awaitRoom(fd int, dir string, size, length int64) error {
	end := func() {}
	defer func() { end() }()
	for waits := false; ; waits = true {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		leave := min(maxLeft, int64(st.Blocks)*st.Bsize/leftShare)
		err := error(unix.ENOSPC)
		if int64(st.Bavail)*st.Bsize >= length+leave {
			err = allocate(fd, 0, length)
		}
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		if err := errors.Join(unix.Ftruncate(fd, 0), unix.Ftruncate(fd, size)); err != nil {
			return err
		}
		if !waits {
			end = wait(dir)
		}
		time.Sleep(roomPoll)
	}
}

// waits counts the tables of compactions that wait for room, by folder.
var waits struct {
	sync.Mutex
	tables map[string]int
}

// wait notes that a table of a folder waits, until the returned function is called.
func wait(dir string) (end func()) {
	waits.Lock()
	defer waits.Unlock()
	if waits.tables == nil {
		waits.tables = make(map[string]int)
	}
	waits.tables[dir]++
	return func() {
		waits.Lock()
		defer waits.Unlock()
		if waits.tables[dir]--; waits.tables[dir] == 0 {
			delete(waits.tables, dir)
		}
	}
}

// Waiting is whether a compaction in a folder waits for room for a table.
func Waiting(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as the system names it
	}
	waits.Lock()
	defer waits.Unlock()
	return err == nil && waits.tables[dir] > 0
}

const (
	// compaction is part of the name of the function that builds a compaction's tables.
	compaction = "badger/v4.(*levelsController).subcompact"
	// A compaction leaves the smaller of maxLeft bytes and one leftShare-th of the disk.
	maxLeft   = 16 << 20
	leftShare = 64
	roomPoll  = 100 * time.Millisecond
)

func allocate(fd int, mode uint32, length int64) error {
	for {
		err := unix.Fallocate(fd, mode, 0, length)
		switch {
		case errors.Is(err, unix.EINTR):
		case mode == 0 && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)):
			return writeZeros(fd, length)
		default:
			return err
		}
	}
}

// writeZeros does by hand what the file system cannot.
func writeZeros(fd int, length int64) error {
	zeros := make([]byte, min(length, 1<<20))
	for at := int64(0); at < length; {
		n, err := unix.Pwrite(fd, zeros[:min(int64(len(zeros)), length-at)], at)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		at += int64(max(n, 0))
	}
	return nil
}

// Reserve gives f the blocks of its first length bytes, whatever its length is and without changing it. Where the file system cannot
// do that it does nothing.
func Reserve(f *os.File, length int64) error {
	err := allocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, length)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return fmt.Errorf("reserve %d bytes of %s: %w", length, f.Name(), err)
}

// Spare is how many bytes can be appended to f without new blocks.
func Spare(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return st.Blocks*512 - st.Size, nil
}

// Free is the space in bytes that is left for this process on the disk of a folder, and the size of that disk.
func Free(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// Taken is whether a file that was empty has been used since: it has a length, or has even been removed again.
func Taken(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && (st.Size > 0 || st.Nlink == 0)
}
