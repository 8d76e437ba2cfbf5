package gc

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// Errors of Dropped.
var (
	ErrNoFolder = errors.New("no such dropped folder")
	ErrDeleting = errors.New("the folder is being deleted")
	ErrInPlace  = errors.New("the partition has a replica")
)

// Kind is why a replica's folder was put away.
type Kind string

const (
	// KindDropped: the replica was removed on purpose.
	KindDropped Kind = "dropped"
	// KindFailed: the replica could not go on, for example because of a corrupt log.
	KindFailed Kind = "failed"
)

const (
	failedSuffix   = ".failed"
	deletingSuffix = ".deleting"
)

// Dropped is the place where replicas' folders wait for their removal.
//
//	ROOT/0003-1700000000            partition 3, dropped at that Unix second
//	ROOT/0003-1700000000.failed     put away because it had failed
//	ROOT/0003-1700000000.deleting   its removal has begun; it cannot be brought back
type Dropped struct {
	fs         vfs.FS
	root       string
	partitions string
	now        func() time.Time

	// mu makes the choice of a name and the rename one step.
	mu sync.Mutex
}

// NewDropped returns the place in folder root (DATA/dropped) for the replicas
// whose folders are in partitions (DATA/partitions). A nil fs means the real
// one, a nil now time.Now.
func NewDropped(fs vfs.FS, root, partitions string, now func() time.Time) *Dropped {
	if fs == nil {
		fs = vfs.Default
	}
	if now == nil {
		now = time.Now
	}
	return &Dropped{fs: fs, root: root, partitions: partitions, now: now}
}

// Folder is one dropped folder.
type Folder struct {
	Name      string    `json:"name"`
	Partition uint32    `json:"partition"`
	Kind      Kind      `json:"kind"`
	Dropped   time.Time `json:"dropped"`
	// Deleting is true once the removal has begun.
	Deleting bool `json:"deleting"`
}

// parseFolder reads a folder's name.
func parseFolder(name string) (Folder, bool) {
	f := Folder{Name: name, Kind: KindDropped}
	rest, deleting := strings.CutSuffix(name, deletingSuffix)
	f.Deleting = deleting
	if cut, ok := strings.CutSuffix(rest, failedSuffix); ok {
		rest, f.Kind = cut, KindFailed
	}
	id, at, ok := strings.Cut(rest, "-")
	partition, err1 := strconv.ParseUint(id, 10, 32)
	seconds, err2 := strconv.ParseInt(at, 10, 48)
	if !ok || err1 != nil || err2 != nil || seconds < 0 || rest != folderName(uint32(partition), seconds) {
		return Folder{}, false
	}
	f.Partition, f.Dropped = uint32(partition), time.Unix(seconds, 0).UTC()
	return f, true
}

func folderName(partition uint32, seconds int64) string {
	return fmt.Sprintf("%04d-%d", partition, seconds)
}

func (d *Dropped) path(name string) string { return d.fs.PathJoin(d.root, name) }

func (d *Dropped) replica(partition uint32) string {
	return d.fs.PathJoin(d.partitions, fmt.Sprintf("%04d", partition))
}

// Drop puts a replica's folder away and returns its new name. The replica must
// be closed. After a crash the folder is in one place or the other, whole.
func (d *Dropped) Drop(partition uint32, kind Kind) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.makeRoot(); err != nil {
		return "", err
	}
	suffix := ""
	if kind == KindFailed {
		suffix = failedSuffix
	}
	for seconds := d.now().Unix(); ; seconds++ {
		name := folderName(partition, seconds)
		taken, err := d.taken(name)
		if err != nil {
			return "", err
		}
		if taken {
			continue
		}
		name += suffix
		if err := d.fs.Rename(d.replica(partition), d.path(name)); err != nil {
			return "", fmt.Errorf("drop replica of partition %d: %w", partition, err)
		}
		return name, d.syncMove(d.root, d.partitions)
	}
}

// makeRoot creates the folder of dropped folders durably.
func (d *Dropped) makeRoot() error {
	_, err := d.fs.Stat(d.root)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", d.root, err)
	}
	if err := d.fs.MkdirAll(d.root, 0o755); err != nil {
		return fmt.Errorf("make folder of dropped replicas: %w", err)
	}
	return dirsync.Sync(d.fs, d.fs.PathDir(d.root))
}

// taken tells whether a folder with this name exists, whatever its suffix.
func (d *Dropped) taken(name string) (bool, error) {
	for _, suffix := range []string{"", failedSuffix, deletingSuffix, failedSuffix + deletingSuffix} {
		_, err := d.fs.Stat(d.path(name + suffix))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look at dropped folder: %w", err)
		}
	}
	return false, nil
}

// List returns the folders, the oldest first. Names that are not of this kind
// are nobody's to touch and are left out.
func (d *Dropped) List() ([]Folder, error) {
	names, err := d.fs.List(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list dropped folders: %w", err)
	}
	var folders []Folder
	for _, name := range names {
		if f, ok := parseFolder(name); ok {
			folders = append(folders, f)
		}
	}
	sort.Slice(folders, func(i, j int) bool {
		if !folders[i].Dropped.Equal(folders[j].Dropped) {
			return folders[i].Dropped.Before(folders[j].Dropped)
		}
		return folders[i].Name < folders[j].Name
	})
	return folders, nil
}

// Holds tells whether there is a folder of this name that can be brought back, or whose removal has begun.
func (d *Dropped) Holds(name string) (bool, error) {
	if _, ok := parseFolder(name); !ok {
		return false, nil
	}
	return d.taken(strings.TrimSuffix(strings.TrimSuffix(name, deletingSuffix), failedSuffix))
}

// Undelete puts a folder back as its partition's replica: ErrInPlace when there
// is one, ErrDeleting when the removal has begun. The node must not have the
// partition open.
func (d *Dropped) Undelete(name string) error {
	f, ok := parseFolder(name)
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoFolder, name)
	}
	if f.Deleting {
		return fmt.Errorf("%w: %s", ErrDeleting, name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.fs.Stat(d.replica(f.Partition)); err == nil {
		return fmt.Errorf("%w: %d", ErrInPlace, f.Partition)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at replica of partition %d: %w", f.Partition, err)
	}
	if _, err := d.fs.Stat(d.path(name)); errors.Is(err, fs.ErrNotExist) {
		if _, err := d.fs.Stat(d.path(name + deletingSuffix)); err == nil {
			return fmt.Errorf("%w: %s", ErrDeleting, name)
		}
		return fmt.Errorf("%w: %s", ErrNoFolder, name)
	}
	if err := d.fs.Rename(d.path(name), d.replica(f.Partition)); err != nil {
		return fmt.Errorf("bring back %s: %w", name, err)
	}
	return d.syncMove(d.partitions, d.root)
}

// condemn marks a folder so that it cannot be brought back, durably, and
// returns its new name.
func (d *Dropped) condemn(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fs.Rename(d.path(name), d.path(name+deletingSuffix)); err != nil {
		return "", fmt.Errorf("begin to delete %s: %w", name, err)
	}
	return name + deletingSuffix, dirsync.Sync(d.fs, d.root)
}

// syncMove makes a rename durable: the new name before the old one's absence.
func (d *Dropped) syncMove(to, from string) error {
	if err := dirsync.Sync(d.fs, to); err != nil {
		return err
	}
	return dirsync.Sync(d.fs, from)
}
