package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors of a store.
var (
	ErrNotFound = errors.New("checkpoint not found")
	ErrLastGood = errors.New("the last good checkpoint of a partition is never removed")
	ErrNeeded   = errors.New("another checkpoint needs this one")
	// ErrFormatVersion marks a checkpoint made by a version of this program that
	// writes another format. It is not damage: nothing removes it by itself.
	ErrFormatVersion = errors.New("format version is not supported")
)

const tempPrefix = "tmp-"

// Store is a folder of checkpoints. Its methods may be called concurrently for
// different partitions; for one partition, at most one of Create, Remove, Prune
// and Clean may run at a time (Service sees to it).
type Store struct {
	fs   vfs.FS
	root string
}

// NewStore returns the store in folder root, which need not exist yet. A nil
// fs means the real one.
func NewStore(fs vfs.FS, root string) *Store {
	if fs == nil {
		fs = vfs.Default
	}
	return &Store{fs: fs, root: root}
}

// Root is the store's folder.
func (s *Store) Root() string { return s.root }

// Info is one checkpoint as List found it.
type Info struct {
	Partition uint32    `json:"partition"`
	Decree    uint64    `json:"decree"`
	Path      string    `json:"path"`
	Manifest  *Manifest `json:"manifest,omitempty"`
	// Err says why the checkpoint cannot be used; Manifest is then nil.
	Err error `json:"-"`
	// Problem is Err as text.
	Problem string `json:"problem,omitempty"`
}

// damaged tells whether the checkpoint is known to be bad, as opposed to not
// readable just now or not by this version.
func (i *Info) damaged() bool {
	var corrupt *CorruptError
	return errors.As(i.Err, &corrupt) || errors.Is(i.Err, fs.ErrNotExist)
}

func (s *Store) partitionDir(partition uint32) string {
	return s.fs.PathJoin(s.root, fmt.Sprintf("%04d", partition))
}

func decreeName(decree uint64) string { return fmt.Sprintf("%020d", decree) }

func (s *Store) dir(partition uint32, decree uint64) string {
	return s.fs.PathJoin(s.partitionDir(partition), decreeName(decree))
}

// Partitions returns the partitions that have a folder in the store, ascending.
func (s *Store) Partitions() ([]uint32, error) {
	names, err := s.list(s.root)
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err == nil && name == fmt.Sprintf("%04d", id) {
			ids = append(ids, uint32(id))
		}
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids, nil
}

// List returns the partition's checkpoints by ascending decree. A damaged one
// is listed with the reason; one being made or removed is not listed. A chunk
// that is missing or has another size than the manifest says counts as damage;
// only Verify reads the chunks.
func (s *Store) List(partition uint32) ([]Info, error) {
	names, err := s.list(s.partitionDir(partition))
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, name := range names {
		decree, err := strconv.ParseUint(name, 10, 64)
		if err != nil || name != decreeName(decree) {
			continue
		}
		infos = append(infos, s.info(partition, decree))
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Decree < infos[j].Decree })
	return infos, nil
}

func (s *Store) info(partition uint32, decree uint64) Info {
	info := Info{Partition: partition, Decree: decree, Path: s.dir(partition, decree)}
	info.Manifest, info.Err = s.load(partition, decree)
	if info.Err != nil {
		info.Problem = info.Err.Error()
	}
	return info
}

// load reads a checkpoint's manifest and holds it against its place and the
// sizes of its chunks.
func (s *Store) load(partition uint32, decree uint64) (*Manifest, error) {
	dir := s.dir(partition, decree)
	if _, err := s.fs.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("partition %d, decree %d: %w", partition, decree, ErrNotFound)
		}
		return nil, fmt.Errorf("look at checkpoint: %w", err)
	}
	m, err := readManifest(s.fs, dir)
	if err != nil {
		return nil, err
	}
	if m.Partition != partition || m.Decree != decree {
		return nil, &CorruptError{Path: dir, Reason: fmt.Sprintf(
			"the manifest describes partition %d at decree %d", m.Partition, m.Decree)}
	}
	for i := range m.Chunks {
		path := s.fs.PathJoin(dir, m.Chunks[i].Name)
		st, err := s.fs.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &CorruptError{Path: path, Reason: "chunk is missing"}
		}
		if err != nil {
			return nil, fmt.Errorf("look at chunk: %w", err)
		}
		if st.Size() != m.Chunks[i].Size {
			return nil, &CorruptError{Path: path, Offset: min(st.Size(), m.Chunks[i].Size),
				Reason: fmt.Sprintf("chunk has %d bytes, the manifest says %d", st.Size(), m.Chunks[i].Size)}
		}
	}
	return m, nil
}

// Latest returns the newest usable checkpoint whose whole chain is usable.
func (s *Store) Latest(partition uint32) (*Manifest, error) {
	infos, err := s.List(partition)
	if err != nil {
		return nil, err
	}
	for i := len(infos) - 1; i >= 0; i-- {
		if chain, err := s.chain(partition, infos[i].Decree); err == nil {
			return chain[len(chain)-1], nil
		}
	}
	return nil, fmt.Errorf("partition %d: %w", partition, ErrNotFound)
}

// chain returns the checkpoint and its ancestors, the full one first.
func (s *Store) chain(partition uint32, decree uint64) ([]*Manifest, error) {
	m, err := s.load(partition, decree)
	if err != nil {
		return nil, err
	}
	chain := []*Manifest{m}
	for !m.Full() {
		parent, err := s.load(partition, m.Parent)
		if err != nil {
			return nil, fmt.Errorf("parent of the checkpoint at decree %d: %w", m.Decree, err)
		}
		if parent.CRC != m.ParentCRC || parent.Depth != m.Depth-1 {
			return nil, &CorruptError{Path: s.dir(partition, m.Parent), Reason: fmt.Sprintf(
				"not the copy that the checkpoint at decree %d was built on", m.Decree)}
		}
		m = parent
		chain = append([]*Manifest{m}, chain...)
	}
	return chain, nil
}

// Clean removes what an interrupted Create or Remove of the partition left.
// turn may be nil.
func (s *Store) Clean(ctx context.Context, turn Turn, partition uint32) error {
	dir := s.partitionDir(partition)
	names, err := s.list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := s.removeFiles(newSlicer(ctx, turn, time.Millisecond), s.fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
	}
	return nil
}

// removeFiles removes a folder of files, one file per slice.
func (s *Store) removeFiles(slices *slicer, dir string) error {
	names, err := s.list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := slices.yield(); err != nil {
			return err
		}
		if err := s.fs.RemoveAll(s.fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("remove file of %s: %w", dir, err)
		}
	}
	if err := s.fs.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove folder %s: %w", dir, err)
	}
	return nil
}

// list returns the names in dir; none when dir does not exist.
func (s *Store) list(dir string) ([]string, error) {
	names, err := s.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return names, nil
}

// syncDir makes the names in dir durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return d.Close()
}

// mkdirSynced creates dir and its missing parents, durably.
func mkdirSynced(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at folder %s: %w", dir, err)
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := mkdirSynced(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	return syncDir(fsys, parent)
}
