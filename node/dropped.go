package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"replicanode/gc"
	"replicanode/plog"
)

// DroppedFolder is a dropped replica and the data folder in which it is.
type DroppedFolder struct {
	gc.Folder
	DataDir string `json:"data_dir"`
}

// ListDropped lists the dropped replicas in a node's data folders, the oldest first. A node may run on them. Not all of the folders need to
// be given; unread says which of the others can't be read, and why.
func ListDropped(dataDirs []string) (list []DroppedFolder, unread []error, err error) {
	list = []DroppedFolder{}
	all, unread, err := withOthers(dataDirs)
	if err != nil {
		return nil, nil, err
	}
	for _, dir := range all {
		folders, err := droppedIn(dir).List()
		if err != nil {
			return nil, nil, about(dir, err)
		}
		for _, f := range folders {
			list = append(list, DroppedFolder{f, dir})
		}
	}
	slices.SortStableFunc(list, func(a, b DroppedFolder) int { return a.Dropped.Compare(b.Dropped) })
	return list, unread, nil
}

// withOthers adds to data folders the others of the same node, where they were when it ran last. unread says of which nothing is known now.
func withOthers(dataDirs []string) (all []string, unread []error, err error) {
	ids := map[string]bool{}
	var newest *folderSet
	for _, dir := range dataDirs {
		file, err := readNodeFile(dir)
		if err != nil {
			return nil, nil, about(dir, err)
		}
		if file.Set != nil {
			ids[file.Folder] = true
			if newest == nil || file.Set.Version > newest.Version {
				newest = file.Set
			}
		}
	}
	all = slices.Clone(dataDirs)
	if newest == nil {
		return all, nil, nil
	}
	for _, other := range newest.Folders {
		if ids[other.ID] {
			continue
		}
		file, err := readNodeFile(other.Path)
		if err == nil && file.Folder != other.ID {
			err = errors.New("is another folder now; give the one it was, too")
		}
		if err != nil {
			unread = append(unread, about(other.Path, err))
			continue
		}
		all = append(all, other.Path)
	}
	return all, unread, nil
}

// Drop puts a partition's folder away; the partition may start empty from then on, in whichever data folder has the fewest. os.ErrNotExist:
// there was no folder.
func (f *Folders) Drop(partition uint32, kind gc.Kind) (name string, err error) {
	name, err = f.drop(partition, kind)
	if isFull(err) && plog.RemoveBallast(vfs.Default, logDirs(f.list[f.placement[partition]].path)(partition)) {
		name, err = f.drop(partition, kind)
	}
	switch {
	case isFull(err):
		return name, fmt.Errorf("%w; partition %d was not dropped: free some 64 KiB on that disk and drop it again", err, partition)
	case errors.Is(err, unix.EROFS):
		return name, fmt.Errorf("%w; partition %d was not dropped: mount that disk for writing and drop it again", err, partition)
	}
	return name, err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func (f *Folders) drop(partition uint32, kind gc.Kind) (name string, err error) {
	if partition >= f.Identity.Partitions {
		return "", fmt.Errorf("partition %d does not exist: there are partitions 0 to %d", partition, f.Identity.Partitions-1)
	}
	at := &f.list[f.placement[partition]]
	// The journal of another folder may wait for the partition, too, which was there when the node died.
	for i := range f.list {
		if d := &f.list[i]; d.err == nil {
			if err := settleJournal(d.path, f.on(i), partition); err != nil {
				return "", about(d.path, err)
			}
		}
	}
	if err := f.AllowEmpty(partition); err != nil {
		return "", err
	}
	if at.err != nil {
		return "", fmt.Errorf("drop replica of partition %d: %w: %w", partition, os.ErrNotExist, about(at.path, at.err))
	}
	return droppedIn(at.path).Drop(partition, kind)
}

// Undelete puts a dropped replica back in the data folder in which it was, and says of which partition it is; that must be there from then on.
func (f *Folders) Undelete(name string) (partition uint32, err error) {
	for i := range f.list {
		d := &f.list[i]
		if d.err != nil {
			continue
		}
		dropped := droppedIn(d.path)
		holds, err := dropped.Holds(name)
		if err != nil {
			return 0, about(d.path, err)
		}
		if holds {
			return f.undeleteIn(i, dropped, name)
		}
	}
	if err := f.Unusable(); err != nil {
		return 0, fmt.Errorf("%w: %q; it may be where nothing can be read: %w", gc.ErrNoFolder, name, err)
	}
	return 0, fmt.Errorf("%w: %q", gc.ErrNoFolder, name)
}

func (f *Folders) undeleteIn(index int, dropped *gc.Dropped, name string) (partition uint32, err error) {
	folders, err := dropped.List()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(folders, func(g gc.Folder) bool { return g.Name == name })
	if i < 0 {
		return 0, dropped.Undelete(name) // which says why not
	}
	partition = folders[i].Partition
	for other := range f.list {
		if d := &f.list[other]; other != index && d.err == nil {
			if names, err := readNames(filepath.Join(partitionPath(d.path, partition))); err != nil {
				return partition, about(d.path, err)
			} else if len(names) > 0 {
				return partition, fmt.Errorf("%w: %d, in %s", gc.ErrInPlace, partition, d.path)
			}
		}
	}
	if err := dropped.Undelete(name); err != nil {
		return partition, err
	}
	if partition < f.Identity.Partitions {
		f.placement[partition] = index
	}
	return partition, f.RequirePresent(partition)
}
