package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
	"replicanode/replica"
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

// Store is a place with checkpoints. Its methods may be called concurrently for
// different partitions; for one partition, at most one of Create, Remove, Prune
// and Clean may run at a time (Service sees to it).
type Store struct {
	b        Backend
	removals removals
}

// NewStore returns the store in folder root, which need not exist yet. A nil
// fs means the real one.
func NewStore(fs vfs.FS, root string) *Store {
	return NewStoreAt(NewFolder(fs, root))
}

// NewStoreAt returns the store that b keeps.
func NewStoreAt(b Backend) *Store { return &Store{b: b} }

// Root says where the store is, without secrets.
func (s *Store) Root() string { return s.b.Path("") }

// Trouble says since when and why the place does not answer; a nil error when it
// does, or nobody knows.
func (s *Store) Trouble() (since time.Time, err error) {
	if b, ok := s.b.(Troubled); ok {
		return b.Trouble()
	}
	return time.Time{}, nil
}

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

// bytes is what the checkpoint's chunks take; 0 for a damaged one.
func (i *Info) bytes() int64 {
	if i.Manifest == nil {
		return 0
	}
	return i.Manifest.Bytes
}

// home is the path of a partition's folder.
func home(partition uint32) string { return fmt.Sprintf("%04d", partition) }

func decreeName(decree uint64) string { return fmt.Sprintf("%020d", decree) }

// place is the path of a checkpoint's folder.
func place(partition uint32, decree uint64) string {
	return path.Join(home(partition), decreeName(decree))
}

// dir shows a checkpoint's place to people.
func (s *Store) dir(partition uint32, decree uint64) string {
	return s.b.Path(place(partition, decree))
}

// Partitions returns the partitions that have a folder in the store, ascending.
func (s *Store) Partitions(ctx context.Context) ([]uint32, error) {
	names, err := s.b.List(ctx, "")
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
func (s *Store) List(ctx context.Context, partition uint32) ([]Info, error) {
	names, err := s.b.List(ctx, home(partition))
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, name := range names {
		decree, err := strconv.ParseUint(name, 10, 64)
		if err != nil || name != decreeName(decree) {
			continue
		}
		if info := s.info(ctx, partition, decree); !errors.Is(info.Err, ErrNotFound) {
			infos = append(infos, info)
		}
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Decree < infos[j].Decree })
	return infos, nil
}

func (s *Store) info(ctx context.Context, partition uint32, decree uint64) Info {
	info := Info{Partition: partition, Decree: decree, Path: s.dir(partition, decree)}
	info.Manifest, info.Err = s.load(ctx, partition, decree)
	if info.Err != nil {
		info.Problem = info.Err.Error()
	}
	return info
}

// load reads a checkpoint's manifest and holds it against its place and the
// sizes of its chunks.
func (s *Store) load(ctx context.Context, partition uint32, decree uint64) (*Manifest, error) {
	dir := s.dir(partition, decree)
	sizes, err := s.b.Sizes(ctx, place(partition, decree))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("partition %d, decree %d: %w", partition, decree, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("look at checkpoint: %w", err)
	}
	m, err := s.readManifest(ctx, partition, decree)
	if err != nil {
		return nil, err
	}
	for i := range m.Chunks {
		chunk := &m.Chunks[i]
		path := s.b.Path(path.Join(place(partition, decree), chunk.Name))
		switch size, ok := sizes[chunk.Name]; {
		case !ok:
			return nil, &CorruptError{Path: path, Reason: "chunk is missing"}
		case size != chunk.Size:
			return nil, &CorruptError{Path: path, Offset: min(size, chunk.Size),
				Reason: fmt.Sprintf("chunk has %d bytes, the manifest says %d", size, chunk.Size)}
		}
	}
	if m.Partition != partition || m.Decree != decree {
		return nil, &CorruptError{Path: dir, Reason: fmt.Sprintf(
			"the manifest describes partition %d at decree %d", m.Partition, m.Decree)}
	}
	return m, nil
}

// readManifest reads a checkpoint's manifest.
func (s *Store) readManifest(ctx context.Context, partition uint32, decree uint64) (*Manifest, error) {
	file := path.Join(place(partition, decree), manifestName)
	b, err := s.readSmall(ctx, file)
	if err != nil {
		return nil, err
	}
	return parseManifest(s.b.Path(file), b)
}

// readSmall reads a manifest's file.
func (s *Store) readSmall(ctx context.Context, path string) ([]byte, error) {
	f, err := s.b.Open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", s.b.Path(path), err)
	}
	if len(b) > maxManifestBytes {
		return nil, &CorruptError{Path: s.b.Path(path), Reason: "manifest too large"}
	}
	return b, nil
}

// ByAge returns one partition's infos, which are by ascending decree, the oldest
// first: a partition that began anew has lower decrees than it had before, and later
// marks. What has no mark is as old as the decree before it.
func ByAge(infos []Info) []Info {
	type aged struct {
		info Info
		time uint64
	}
	all := make([]aged, len(infos))
	for i, info := range infos {
		all[i].info = info
		if info.Manifest != nil {
			all[i].time = replica.MarkTime(info.Manifest.Mark)
		}
		if all[i].time == 0 && i > 0 {
			all[i].time = all[i-1].time
		}
	}
	slices.SortStableFunc(all, func(a, b aged) int { return cmp.Compare(a.time, b.time) })
	sorted := make([]Info, len(all))
	for i := range all {
		sorted[i] = all[i].info
	}
	return sorted
}

// Latest returns the newest usable checkpoint whose whole chain is usable: of the
// partition's present history, if it began anew.
func (s *Store) Latest(ctx context.Context, partition uint32) (*Manifest, error) {
	infos, err := s.List(ctx, partition)
	if err != nil {
		return nil, err
	}
	infos = ByAge(infos)
	for i := len(infos) - 1; i >= 0; i-- {
		if chain, err := s.chain(ctx, partition, infos[i].Decree); err == nil {
			return chain[len(chain)-1], nil
		}
	}
	return nil, fmt.Errorf("partition %d: %w", partition, ErrNotFound)
}

// chain returns the checkpoint and its ancestors, the full one first.
func (s *Store) chain(ctx context.Context, partition uint32, decree uint64) ([]*Manifest, error) {
	m, err := s.load(ctx, partition, decree)
	if err != nil {
		return nil, err
	}
	chain := []*Manifest{m}
	for !m.Full() {
		parent, err := s.load(ctx, partition, m.Parent)
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

// parentChain returns the chain of parent, or with nil of the newest usable
// checkpoint; nil when that is not usable, so that nothing can be built on it.
func (s *Store) parentChain(ctx context.Context, partition uint32, parent *Manifest) ([]*Manifest, error) {
	if parent == nil {
		latest, err := s.Latest(ctx, partition)
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		parent = latest
	}
	chain, err := s.chain(ctx, partition, parent.Decree)
	if err != nil || chain[len(chain)-1].CRC != parent.CRC {
		return nil, ctx.Err()
	}
	return chain, nil
}

// Clean removes what an interrupted Create or Remove of the partition left.
// turn may be nil.
func (s *Store) Clean(ctx context.Context, turn Turn, partition uint32) error {
	return s.b.Clean(ctx, home(partition), s.each(ctx, turn))
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
	return dirsync.Sync(fsys, parent)
}
