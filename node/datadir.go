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
	"time"

	"golang.org/x/sys/unix"
)

// formatVersion is the newest layout of a data folder that this build reads and writes.
const formatVersion = 1

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

// Folder is an open, locked data folder.
type Folder struct {
	Path     string
	Identity Identity
	lock     *os.File
	// mayStartEmpty is that of nodeFile.
	mayStartEmpty []uint32
}

// OpenFolder locks the data folder at path, creating it when it does not exist. want gives the identity of a new folder; of an
// existing one it is compared where it is set (ClusterID 0 and Partitions 0 accept what is there). Nothing is written to a folder
// that is not ours: a foreign, newer or differing one is refused. Errors name --data-dir and say what to do.
func OpenFolder(path string, want Identity) (*Folder, error) {
	f, err := openFolder(path, want)
	var flag *FlagError
	if err != nil && !errors.As(err, &flag) {
		err = fmt.Errorf("--data-dir %s: %w", path, err)
	}
	return f, err
}

func openFolder(path string, want Identity) (*Folder, error) {
	fresh, err := inspectFolder(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("can't be created: %w; give a folder that this user may write to", err)
	}
	lock, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	f := &Folder{Path: path, lock: lock}
	if fresh {
		err = f.initialize(want, nil)
	} else {
		err = f.load(want)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close releases the lock.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	err := f.lock.Close()
	f.lock = nil
	return err
}

// inspectFolder reports whether path is absent or empty (fresh), and refuses a folder that holds somebody else's files.
func inspectFolder(path string) (fresh bool, err error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return false, fmt.Errorf("is not a folder, or below something that is not; give a folder: %w", err)
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

// initialize writes the identity of a new folder, whole or not at all. The folder holds the partitions present.
func (f *Folder) initialize(want Identity, present []uint32) error {
	id := want
	id.FormatVersion = formatVersion
	id.Created = time.Now().UTC().Truncate(time.Second)
	for id.ClusterID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("choose a cluster id: %w", err)
		}
		// 53 bits: the id passes through JSON readers that keep numbers as doubles.
		id.ClusterID = binary.LittleEndian.Uint64(b[:]) >> 11
	}
	if id.NodeID == 0 {
		id.NodeID = 1
	}
	return f.write(id, allPartitions(id.Partitions, present))
}

func (f *Folder) load(want Identity) error {
	file, err := readNodeFile(f.Path)
	if err != nil {
		return err
	}
	id := file.Identity
	if want.Partitions != 0 && want.Partitions != id.Partitions {
		return &FlagError{Flag: "partitions", Value: fmt.Sprint(want.Partitions), Reason: fmt.Sprintf("data folder %s was made with %d partitions, and their number can't change; leave the flag out or give %d", f.Path, id.Partitions, id.Partitions)}
	}
	if want.ClusterID != 0 && want.ClusterID != id.ClusterID {
		return &FlagError{Flag: "cluster-id", Value: fmt.Sprint(want.ClusterID), Reason: fmt.Sprintf("data folder %s belongs to cluster %d", f.Path, id.ClusterID)}
	}
	f.Identity, f.mayStartEmpty = id, file.MayStartEmpty
	return nil
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
	if id.FormatVersion < 1 || id.ClusterID == 0 || id.NodeID == 0 || id.Partitions == 0 {
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
	return syncFolder(filepath.Dir(name))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	err = dir.Sync()
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil
}

// Addresses is the file ADDRESSES of a running node's data folder, JSON: where it listens, with the ports that were picked for it.
type Addresses struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	Peer   string `json:"peer"`
	PID    int    `json:"pid"`
}

func (f *Folder) writeAddresses(a Addresses) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	return writeFileSynced(filepath.Join(f.Path, addressesFile), append(data, '\n'))
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

func (f *Folder) removeAddresses() error {
	err := os.Remove(filepath.Join(f.Path, addressesFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove addresses file: %w", err)
	}
	return nil
}
