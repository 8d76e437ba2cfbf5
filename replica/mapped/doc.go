// Package mapped keeps a full disk from killing the process through badger's memory-mapped files.
//
// badger creates its files by setting their length and writing to a shared mapping of them. Such a file is sparse: its blocks
// are looked for when a page is touched first, and when there are none left, the process gets SIGBUS, which nothing can recover
// from. Nor does badger offer a place to step in. So Install puts a function between golang.org/x/sys/unix.Mmap, which badger
// uses, and the system: it gives a new file its blocks before the file is mapped for writing. Without room the mapping fails with
// ENOSPC, the file is removed, and badger gets an error, which it handles by trying again (tables of a memtable) or by passing it on (opening).
//
// There are two kinds of file of which it takes little, because badger writes little to them or somebody else (package replica)
// reserves the rest ahead of what is written:
//
//	.mem   the log behind a memtable: FirstBytes
//	.vlog  the value log, of which only the header is ever written: one page
//
// A file that has blocks already is left as it is.
//
// A table of a compaction must not fail: badger drops that error, and with it everything that the table was to hold, while it forgets the
// tables that it was made of. So whoever makes one waits until there is room. A database that is closed meanwhile waits with it; Waiting tells.
//
// Where the file system cannot reserve space, zeros are written. On systems other than Linux nothing is done.
package mapped

// FirstBytes are reserved of a file behind a memtable when badger maps it.
const FirstBytes = 1 << 20

// headerBytes are reserved of a file that will only get a header.
const headerBytes = 4 << 10
