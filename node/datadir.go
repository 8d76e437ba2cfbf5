package node

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"replicanode/internal/dirsync"
	"replicanode/replica"
)

// formatVersion is the newest layout of a data folder that this build reads. A folder that is the only one of its node is written with
// soleFormatVersion; one of several with formatVersion, so that a build that knows nothing of the others refuses it.
const (
	soleFormatVersion = 1
	formatVersion     = 2
)

// Names inside a data folder.
const (
	identityFile   = "NODE"
	lockFile       = "LOCK"
	addressesFile  = "ADDRESSES"
	partitionsDir  = "partitions"
	droppedDir     = "dropped"
	checkpointsDir = "checkpoints"
)

// Identity is what a data folder says about the node it belongs to: the file NODE, JSON.
type Identity struct {
	FormatVersion int       `json:"format_version"`
	ClusterID     uint64    `json:"cluster_id"`
	NodeID        uint64    `json:"node_id"`
	Partitions    uint32    `json:"partitions"`
	Created       time.Time `json:"created"`
}

// ErrFolderInUse is returned when another process holds a data folder.
var ErrFolderInUse = errors.New("in use by another process")

// folder is one data folder as it was found.
type folder struct {
	path string // as it was given
	real string // absolute and without links
	// fresh: absent or empty. file is set when it is not.
	fresh bool
	file  nodeFile
	// partitions are those whose folders are there and hold something, in order; leftovers whether there are dropped replicas or
	// checkpoints.
	partitions []uint32
	leftovers  bool
	free       uint64 // bytes
	// err is why the folder cannot be used.
	err  error
	lock *os.File
}

// diskPatience is how long a disk may take to answer what is asked of it at the start. It is counted in ticks, so that time in which
// this process did not run counts as one of them.
const (
	diskPatience = 5 * time.Second
	patienceTick = 100 * time.Millisecond
)

// inspect looks at the folders, at all of them at the same time. With probe it is tried whether
// a disk can be written to; else nothing is written. A disk that does not answer is an error of its folder; what was asked of it ends
// when it answers.
func inspect(paths []string, probe bool) []*folder {
	return inspectWith(paths, func(path string) *folder { return inspectOne(path, probe) })
}

func inspectWith(paths []string, look func(path string) *folder) []*folder {
	answers := make([]chan *folder, len(paths))
	for i, path := range paths {
		answers[i] = make(chan *folder, 1)
		go func() { answers[i] <- look(path) }()
	}
	ticker := time.NewTicker(patienceTick)
	defer ticker.Stop()
	left := int(diskPatience / patienceTick)
	folders := make([]*folder, len(paths))
	for i, path := range paths {
		for folders[i] == nil && left > 0 {
			select {
			case folders[i] = <-answers[i]:
			case <-ticker.C:
				left--
			}
		}
		if folders[i] != nil {
			continue
		}
		select {
		case folders[i] = <-answers[i]:
		default:
			abs, _ := filepath.Abs(path)
			folders[i] = &folder{path: path, real: abs, err: fmt.Errorf("its disk does not answer within %v", diskPatience)}
		}
	}
	return folders
}

func inspectOne(path string, probe bool) *folder {
	f := &folder{path: path}
	var err error
	if f.real, err = realPath(path); err != nil {
		f.real, _ = filepath.Abs(path)
		f.err = fmt.Errorf("can't be found: %w; give a folder that this user may read and write", err)
		if errors.Is(err, unix.ENOTDIR) {
			f.err = notAFolder(err)
		}
		return f
	}
	if f.fresh, f.err = inspectFolder(path); f.err != nil {
		return f
	}
	var st unix.Statfs_t
	for dir := f.real; ; dir = filepath.Dir(dir) {
		if err := unix.Statfs(dir, &st); err == nil {
			f.free = st.Bavail * uint64(st.Bsize)
			break
		} else if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			f.err = fmt.Errorf("can't be asked for its space: %w", err)
			return f
		}
	}
	if f.fresh {
		return f
	}
	if f.file, f.err = readNodeFile(path); f.err == nil {
		f.err = f.scan()
	}
	if f.err == nil && probe {
		f.err = probeDisk(path)
	}
	return f
}

// probeFile is overwritten to see whether a disk takes writes, here and by package gc.
const probeFile = "disk-probe"

// probeDisk writes and syncs a block. A disk that is full passes.
func probeDisk(path string) error {
	file, err := os.OpenFile(filepath.Join(path, probeFile), os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = file.WriteAt(make([]byte, 4096), 0)
		if err == nil {
			err = file.Sync()
		}
		err = errors.Join(err, file.Close())
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("can't be written to: %w; give a folder that this user may write to", err)
	}
	return nil
}

// scan finds out what the folder holds.
func (f *folder) scan() error {
	entries, err := readNames(filepath.Join(f.path, partitionsDir))
	if err != nil {
		return err
	}
	for _, name := range entries {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil || name != replica.PartitionDir(uint32(id)) || uint32(id) >= f.file.Partitions {
			continue
		}
		inside, err := readNames(filepath.Join(f.path, partitionsDir, name))
		if err != nil {
			return err
		}
		if len(inside) > 0 {
			f.partitions = append(f.partitions, uint32(id))
		}
	}
	for _, dir := range []string{droppedDir, checkpointsDir} {
		names, err := readNames(filepath.Join(f.path, dir))
		if err != nil {
			return err
		}
		f.leftovers = f.leftovers || len(names) > 0
	}
	return nil
}

// readNames are the names in a folder, none when it does not exist.
func readNames(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("can't be read: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func notAFolder(err error) error {
	return fmt.Errorf("is not a folder, or below something that is not; give a folder: %w", err)
}

// about puts the folder's name before an error.
func about(path string, err error) error {
	var flag *FlagError
	if err == nil || errors.As(err, &flag) {
		return err
	}
	return fmt.Errorf("--data-dir %s: %w", path, err)
}

// inspectFolder reports whether path is absent or empty (fresh), and refuses a folder that holds somebody else's files.
func inspectFolder(path string) (fresh bool, err error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return false, notAFolder(err)
	}
	if err != nil {
		return false, fmt.Errorf("can't be read: %w; give a folder that this user may read and write", err)
	}
	foreign := ""
	for _, e := range entries {
		switch e.Name() {
		case identityFile:
			return false, nil
		case lockFile, identityFile + ".tmp", addressesFile, "lost+found":
		default:
			foreign = e.Name()
		}
	}
	if foreign != "" {
		return false, fmt.Errorf("is not empty and has no %s file (it holds %q); give an empty folder or one made by replicanode", identityFile, foreign)
	}
	return true, nil
}

func lockFolder(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, unix.EROFS) {
		return nil, fmt.Errorf("can't be locked: %w; mount its disk for writing", err)
	}
	if err != nil {
		return nil, fmt.Errorf("can't be locked: %w; give a folder that this user may write to", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w; stop that process or give another folder", ErrFolderInUse)
		}
		return nil, fmt.Errorf("can't be locked: %w; give a folder on a file system with locks", err)
	}
	return file, nil
}

// newIdentity completes the identity of a new node.
func newIdentity(want Identity) (Identity, error) {
	id := want
	id.FormatVersion = soleFormatVersion
	id.Created = time.Now().UTC().Truncate(time.Second)
	for id.ClusterID == 0 {
		n, err := randomNumber()
		if err != nil {
			return id, fmt.Errorf("choose a cluster id: %w", err)
		}
		// 53 bits: the id passes through JSON readers that keep numbers as doubles.
		id.ClusterID = n >> 11
	}
	if id.NodeID == 0 {
		id.NodeID = 1
	}
	if id.Partitions == 0 {
		id.Partitions = newFolderPartitions
	}
	return id, nil
}

func randomNumber() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// ReadIdentity reads the identity of a data folder without locking it. Errors name --data-dir and say what to do.
func ReadIdentity(path string) (Identity, error) {
	file, err := readNodeFile(path)
	if err != nil {
		return file.Identity, fmt.Errorf("--data-dir %s: %w", path, err)
	}
	return file.Identity, nil
}

func readNodeFile(path string) (id nodeFile, err error) {
	name := filepath.Join(path, identityFile)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("has no %s file: %w; give a folder that a node was run on", identityFile, fs.ErrNotExist)
	}
	if err != nil {
		return id, fmt.Errorf("read node identity: %w", err)
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return id, fmt.Errorf("%s is damaged: %w; put that file back from a copy, or give another folder", identityFile, err)
	}
	if id.FormatVersion > formatVersion {
		return id, fmt.Errorf("has format %d, newer than this build's %d; run the newer build, or give another folder", id.FormatVersion, formatVersion)
	}
	several := id.FormatVersion > soleFormatVersion
	if id.FormatVersion < 1 || id.ClusterID == 0 || id.NodeID == 0 || id.Partitions == 0 || several != (id.Set != nil && id.Folder != "" && len(id.Set.Folders) > 0) {
		return id, fmt.Errorf("%s is damaged: a field is missing; put that file back from a copy, or give another folder", identityFile)
	}
	return id, nil
}

// writeFileSynced replaces name with data, so that a crash leaves the old file or the new one.
func writeFileSynced(name string, data []byte) error {
	tmp := name + ".tmp"
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return dirsync.Sync(vfs.Default, filepath.Dir(name))
}

// Addresses is the file ADDRESSES of a running node's data folder, JSON: where it listens, with the ports that were picked for it.
type Addresses struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	Peer   string `json:"peer"`
	PID    int    `json:"pid"`
}

// readAddresses reads where the node on a data folder listens.
func readAddresses(path string) (Addresses, error) {
	var a Addresses
	data, err := os.ReadFile(filepath.Join(path, addressesFile))
	if err != nil {
		return a, fmt.Errorf("read addresses file: %w", err)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("%s of data folder %s is damaged: %w", addressesFile, path, err)
	}
	return a, nil
}
