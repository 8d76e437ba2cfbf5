package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// nodeFile is what the file NODE of a data folder holds. What concerns the node as a whole is the same in all its folders, but for one
// that was away when it was written: the greatest version holds.
type nodeFile struct {
	Identity
	// MayStartEmpty are the partitions that have never served from this node's folders, or whose replica was dropped. All others must
	// be there when the node starts: a folder that vanished must not come back as a partition without keys.
	MayStartEmpty []uint32 `json:"may_start_empty,omitempty"`
	// Folder names this folder among Set. Both are absent as long as the node has never had a second folder.
	Folder string     `json:"folder,omitempty"`
	Set    *folderSet `json:"set,omitempty"`
}

func (n nodeFile) encode() ([]byte, error) {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode node identity: %w", err)
	}
	return append(data, '\n'), nil
}

// writeNodeFile writes the file NODE of a folder, whole or not at all.
func writeNodeFile(path string, n nodeFile) error {
	data, err := n.encode()
	if err != nil {
		return err
	}
	return writeFileSynced(filepath.Join(path, identityFile), data)
}

// folderSet are the data folders of a node, the first of which keeps its checkpoints.
type folderSet struct {
	// Version grows with every change.
	Version uint64   `json:"version"`
	Folders []member `json:"folders"`
}

// member is one data folder of several.
type member struct {
	ID string `json:"id"`
	// Path is where it was, absolute, when the node started last.
	Path string `json:"path"`
	// Partitions are those that belong there.
	Partitions []uint32 `json:"partitions"`
}

// Folders are the open, locked data folders of a node. Those that cannot be used are among them, with the reason.
type Folders struct {
	Identity Identity
	// list has the order of the record; the first is that of the checkpoints.
	list []memberFolder
	// placement is the index in list of each partition's folder.
	placement     []int
	mayStartEmpty []uint32
	version       uint64
	// changed: a folder was added or left out.
	changed bool
	// notes are what an operator should know of the way in which the folders were found.
	notes []string
	write func(name string, data []byte) error
}

// memberFolder is one of Folders.
type memberFolder struct {
	id, path, real string
	// err is why it cannot be used; nothing is read from it or written to it then.
	err     error
	lock    *os.File
	written nodeFile // what its file NODE holds
	// added: the node did not have it before.
	added bool
}

// OpenFolders locks the data folders of a node, making those that do not exist. want gives the identity of a new node; of an existing
// one it is compared where it is set (ClusterID 0 and Partitions 0 accept what is there). Nothing is written to a folder that is not
// ours: a foreign, newer or differing one is refused. Errors name --data-dir and say what to do.
//
// New partitions are placed where the fewest are, and among equals where most space is free. One that exists stays where it is.
// A folder that this node had and that cannot be used now is no error as long as another one can be: its partitions are.
func OpenFolders(paths []string, want Identity) (*Folders, error) {
	return openFolders(paths, want, writeFileSynced)
}

func openFolders(paths []string, want Identity, write func(string, []byte) error) (*Folders, error) {
	return openPlanned(paths, want, write, func(*Folders) error { return nil })
}

// openPlanned is openFolders if accept agrees to what it would do.
func openPlanned(paths []string, want Identity, write func(string, []byte) error, accept func(*Folders) error) (*Folders, error) {
	// First without a trace, so that nothing is left in folders that are refused; then again under the locks.
	found := inspect(paths, false)
	plan, err := planFolders(found, want)
	if err != nil {
		return nil, err
	}
	if err := accept(plan); err != nil {
		return nil, err
	}
	locks, err := lockAll(found)
	if err != nil {
		return nil, err
	}
	again := inspect(paths, true)
	for i, f := range again {
		if f.err == nil {
			f.err = found[i].err // found out while locking
		}
		f.lock = locks[i]
	}
	f, err := planFolders(again, want)
	if err == nil {
		err = accept(f)
	}
	if err != nil {
		unlockAll(again, locks)
		return nil, err
	}
	f.write = write
	f.noteUnusable()
	if err := f.record(f.mayStartEmpty); err != nil {
		if f.changed {
			return nil, errors.Join(err, f.Close())
		}
		// The rest is found out at each start: a full disk must not keep the node from serving reads and freeing space.
		f.notes = append(f.notes, err.Error())
	}
	return f, nil
}

// noteUnusable gives up what cannot be used.
func (f *Folders) noteUnusable() {
	for i := range f.list {
		d := &f.list[i]
		if d.err == nil {
			continue
		}
		f.notes = append(f.notes, fmt.Sprintf("%v; %s cannot be served", about(d.path, d.err), numbers(f.on(i))))
		if d.lock != nil {
			_ = d.lock.Close() // it was opened for the lock alone
			d.lock = nil
		}
	}
}

// OpenExisting is OpenFolders for those that a node was run on: none is made or added. One of the node's folders may be empty now, as when its
// disk is not mounted; it cannot be used then.
func OpenExisting(paths []string) (*Folders, error) {
	return openPlanned(paths, Identity{}, writeFileSynced, func(f *Folders) error {
		for i := range f.list {
			if d := &f.list[i]; d.added {
				if _, err := ReadIdentity(d.path); err != nil {
					return err
				}
				return about(d.path, errors.New("is none of this node's folders any more; leave it out"))
			}
		}
		return nil
	})
}

// lockAll locks the folders that can be used and makes those that are absent. When there are several, one that can't be locked cannot
// be used.
func lockAll(folders []*folder) ([]*os.File, error) {
	locks := make([]*os.File, len(folders))
	for i, f := range folders {
		if f.err != nil {
			continue
		}
		lock, err := makeAndLock(f)
		switch {
		case err == nil:
			locks[i] = lock
		case errors.Is(err, ErrFolderInUse) || len(folders) == 1 || f.fresh:
			unlockAll(folders, locks)
			return nil, about(f.path, err)
		default:
			f.err = err
		}
	}
	return locks, nil
}

func makeAndLock(f *folder) (*os.File, error) {
	if err := os.MkdirAll(f.path, 0o755); err != nil {
		return nil, fmt.Errorf("can't be created: %w; give a folder that this user may write to", err)
	}
	return lockFolder(f.path)
}

// unlockAll gives locks back, and takes away what was made for them.
func unlockAll(folders []*folder, locks []*os.File) {
	for i, l := range locks {
		if l == nil {
			continue
		}
		if folders[i].fresh {
			_ = os.Remove(l.Name())
			_ = os.Remove(folders[i].path) // unless something is in it
		}
		_ = l.Close() // it was opened for the lock alone
	}
}

// record writes what has changed to the file NODE of every folder that can be used, those first that knew the node before: a folder
// that is being added counts only once all others know of it.
func (f *Folders) record(mayStartEmpty []uint32) error {
	files := f.files(f.version, mayStartEmpty)
	changed := false
	for i := range f.list {
		changed = changed || f.list[i].err == nil && !sameNode(f.list[i].written, files[i])
	}
	if !changed {
		f.mayStartEmpty = mayStartEmpty
		return nil
	}
	version := f.version
	if files[0].Set != nil {
		version++
		files = f.files(version, mayStartEmpty)
	}
	for _, fresh := range []bool{false, true} {
		for i := range f.list {
			d := &f.list[i]
			if d.err != nil || (d.written.FormatVersion == 0) != fresh {
				continue
			}
			data, err := files[i].encode()
			if err == nil {
				err = f.write(filepath.Join(d.path, identityFile), data)
			}
			if err != nil {
				return about(d.path, err)
			}
		}
	}
	for i := range f.list {
		if f.list[i].err == nil {
			f.list[i].written = files[i]
		}
	}
	f.version, f.mayStartEmpty = version, mayStartEmpty
	return nil
}

// sameNode compares two files. Lists that are empty and those that are absent are the same.
func sameNode(a, b nodeFile) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && reflect.DeepEqual(x, y)
}

// files are the files NODE of all folders.
func (f *Folders) files(version uint64, mayStartEmpty []uint32) []nodeFile {
	files := make([]nodeFile, len(f.list))
	var set *folderSet
	if len(f.list) > 1 || f.version > 0 {
		set = &folderSet{Version: version}
		for i := range f.list {
			set.Folders = append(set.Folders, member{ID: f.list[i].id, Path: f.list[i].real, Partitions: f.on(i)})
		}
	}
	for i := range files {
		files[i] = nodeFile{Identity: f.Identity, MayStartEmpty: mayStartEmpty, Set: set}
		files[i].FormatVersion = soleFormatVersion
		if set != nil {
			files[i].FormatVersion, files[i].Folder = formatVersion, f.list[i].id
		}
	}
	return files
}

// on are the partitions of a folder.
func (f *Folders) on(index int) []uint32 {
	ids := []uint32{}
	for id, at := range f.placement {
		if at == index {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}

// Paths are the folders, in the order of the record.
func (f *Folders) Paths() []string {
	var paths []string
	for i := range f.list {
		paths = append(paths, f.list[i].path)
	}
	return paths
}

// Of is the index in Paths of a partition's folder.
func (f *Folders) Of(partition uint32) int { return f.placement[partition] }

// Unusable is why no folder may be changed with some of them out of use, nil when all can be used.
func (f *Folders) Unusable() error {
	for i := range f.list {
		if f.list[i].err != nil {
			return about(f.list[i].path, f.list[i].err)
		}
	}
	return nil
}

// each calls do for every folder that can be used, and stops at the first error.
func (f *Folders) each(do func(path string) error) error {
	for i := range f.list {
		if f.list[i].err != nil {
			continue
		}
		if err := do(f.list[i].path); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the locks.
func (f *Folders) Close() error {
	var errs []error
	for i := range f.list {
		if lock := f.list[i].lock; lock != nil {
			errs = append(errs, lock.Close())
			f.list[i].lock = nil
		}
	}
	return errors.Join(errs...)
}

// FolderError is why a data folder, and with it each of its partitions, cannot be used.
type FolderError struct {
	Path   string
	Reason error
}

func (e *FolderError) Error() string { return about(e.Path, e.Reason).Error() }

func (e *FolderError) Unwrap() error { return e.Reason }

// String names the folders.
func (f *Folders) String() string { return strings.Join(f.Paths(), ",") }

func (f *Folders) writeAddresses(a Addresses) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	return f.each(func(path string) error {
		return writeFileSynced(filepath.Join(path, addressesFile), append(data, '\n'))
	})
}

func (f *Folders) removeAddresses() error {
	return f.each(func(path string) error {
		err := os.Remove(filepath.Join(path, addressesFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove addresses file: %w", err)
		}
		return nil
	})
}

// numbers puts partitions into a sentence.
func numbers(partitions []uint32) string {
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(partitions), " ", ", "), "[]")
	if len(partitions) == 1 {
		return "partition " + text
	}
	return "partitions " + text
}

// served are the partitions of a list that must exist.
func served(partitions, mayStartEmpty []uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(partitions), func(id uint32) bool { return slices.Contains(mayStartEmpty, id) })
}
