package gc

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sizes walks one data folder, one folder per call.
func (d *DiskStat) sizes(turn Turn, i int) (*DiskStatus, error) {
	st := &DiskStatus{partitions: make(map[uint32]*usage)}
	queue := []string{""}
	for len(queue) > 0 {
		rel := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		found := new(folder)
		if err := d.call(turn, i, byRun, func() (err error) {
			*found, err = readFolder(d.o.FS, d.o.FS.PathJoin(d.o.Dirs[i], rel))
			return err
		}); err != nil {
			return nil, err
		}
		st.add(rel, found.bytes)
		for _, name := range found.folders {
			queue = append(queue, strings.TrimPrefix(rel+"/"+name, "/"))
		}
		if err := turn.Yield(0); err != nil {
			return nil, err
		}
	}
	for _, u := range st.partitions {
		if d.o.Garbage != nil {
			u.GarbageBytes = d.o.Garbage(u.Partition)
		}
		st.Partitions = append(st.Partitions, *u)
	}
	sortUsages(st.Partitions)
	return st, nil
}

// folder is one folder's own files and its subfolders.
type folder struct {
	bytes   int64
	folders []string
}

// readFolder looks at one folder; what vanishes meanwhile is not there.
func readFolder(fsys vfs.FS, path string) (folder, error) {
	var f folder
	names, err := fsys.List(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		st, err := fsys.Stat(fsys.PathJoin(path, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return f, fmt.Errorf("look at %s: %w", fsys.PathJoin(path, name), err)
		case st.IsDir():
			f.folders = append(f.folders, name)
		default:
			f.bytes += allocated(st)
		}
	}
	return f, nil
}

// add books bytes of the folder rel under what owns it.
func (s *DiskStatus) add(rel string, bytes int64) {
	parts := strings.Split(rel, "/")
	if parts[0] == "dropped" {
		s.DroppedBytes += bytes
		return
	}
	if len(parts) >= 2 && (parts[0] == "partitions" || parts[0] == "checkpoints") {
		if id, err := strconv.ParseUint(parts[1], 10, 32); err == nil {
			u := s.partitions[uint32(id)]
			if u == nil {
				u = &usage{Partition: uint32(id)}
				s.partitions[uint32(id)] = u
			}
			switch {
			case parts[0] == "checkpoints":
				u.CheckpointBytes += bytes
			case len(parts) >= 3 && parts[2] == "plog":
				u.LogBytes += bytes
			default:
				u.DataBytes += bytes
			}
			return
		}
	}
	s.OtherBytes += bytes
}
