package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

// folder is a Backend in a folder of a file system. A draft has a temporary name
// beside its checkpoint's; so has what is being removed.
type folder struct {
	fs   vfs.FS
	root string
}

// NewFolder is a Backend in folder root of a file system, which need not exist
// yet. A nil fs means the real one.
func NewFolder(fs vfs.FS, root string) Backend {
	if fs == nil {
		fs = vfs.Default
	}
	return &folder{fs, root}
}

// Path implements Backend.
func (f *folder) Path(path string) string {
	if path == "" {
		return f.root
	}
	return f.fs.PathJoin(f.root, path)
}

// List implements Backend.
func (f *folder) List(_ context.Context, dir string) ([]string, error) {
	names, err := f.fs.List(f.Path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.Path(dir), err)
	}
	return names, nil
}

// Sizes implements Backend.
func (f *folder) Sizes(_ context.Context, dir string) (map[string]int64, error) {
	names, err := f.fs.List(f.Path(dir))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.Path(dir), err)
	}
	sizes := make(map[string]int64, len(names))
	for _, name := range names {
		st, err := f.fs.Stat(f.fs.PathJoin(f.Path(dir), name))
		if err != nil {
			return nil, fmt.Errorf("look at %s in %s: %w", name, f.Path(dir), err)
		}
		sizes[name] = st.Size()
	}
	return sizes, nil
}

// Open implements Backend.
func (f *folder) Open(_ context.Context, path string) (io.ReadCloser, error) {
	return f.fs.Open(f.Path(path))
}

// Put implements Backend.
func (f *folder) Put(_ context.Context, path string, data []byte) (err error) {
	full := f.Path(path)
	dir := f.fs.PathDir(full)
	if err := mkdirSynced(f.fs, dir); err != nil {
		return err
	}
	temp := f.fs.PathJoin(dir, tempPrefix+f.fs.PathBase(full))
	defer func() {
		if err != nil {
			// What cannot be removed now is removed by the next Clean.
			_ = f.fs.Remove(temp)
		}
	}()
	if err := f.write(temp, data); err != nil {
		return err
	}
	if err := f.fs.Rename(temp, full); err != nil {
		return fmt.Errorf("give %s its name: %w", full, err)
	}
	return dirsync.Sync(f.fs, dir)
}

// write makes a file with data, synced and read back.
func (f *folder) write(path string, data []byte) error {
	file, err := f.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	_, err = file.Write(bytes.Clone(data)) // a vfs.File may change what it is given
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	back, err := f.fs.Open(path)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	got, err := io.ReadAll(io.LimitReader(back, int64(len(data))+1))
	if err := errors.Join(err, back.Close()); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, data) {
		return &CorruptError{Path: path, Reason: "what was read differs from what was written"}
	}
	return nil
}

// Delete implements Backend.
func (f *folder) Delete(_ context.Context, path string) error {
	if err := f.fs.Remove(f.Path(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", f.Path(path), err)
	}
	return dirsync.Sync(f.fs, f.fs.PathDir(f.Path(path)))
}

// Remove implements Backend.
func (f *folder) Remove(_ context.Context, dir string, each Each) error {
	path := f.Path(dir)
	home := f.fs.PathDir(path)
	gone := f.fs.PathJoin(home, tempPrefix+"removed-"+f.fs.PathBase(path))
	err := each(0, func() error {
		if err := f.fs.Rename(path, gone); err != nil {
			return err
		}
		return dirsync.Sync(f.fs, home)
	})
	if err != nil {
		return fmt.Errorf("take away the name of checkpoint %s: %w", path, err)
	}
	return f.removeFiles(gone, each)
}

// Clean implements Backend.
func (f *folder) Clean(ctx context.Context, home string, each Each) error {
	var names []string
	if err := each(0, func() (err error) {
		names, err = f.List(ctx, home)
		return err
	}); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := f.removeFiles(f.fs.PathJoin(f.Path(home), name), each); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
	}
	return nil
}

// removeFiles removes a file, or a folder of files one by one.
func (f *folder) removeFiles(path string, each Each) error {
	sizes := make(map[string]int64)
	err := each(0, func() error {
		st, err := f.fs.Stat(path)
		if err != nil || !st.IsDir() {
			return err
		}
		names, err := f.fs.List(path)
		for _, name := range names {
			st, serr := f.fs.Stat(f.fs.PathJoin(path, name))
			if sizes[name] = 0; serr == nil {
				sizes[name] = st.Size()
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	for name, size := range sizes {
		if err := each(size, func() error { return f.fs.RemoveAll(f.fs.PathJoin(path, name)) }); err != nil {
			return fmt.Errorf("remove file of %s: %w", path, err)
		}
	}
	if err := each(0, func() error { return f.fs.RemoveAll(path) }); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Begin implements Backend.
func (f *folder) Begin(_ context.Context, dir string) (Draft, error) {
	final := f.Path(dir)
	d := &folderDraft{fs: f.fs, f: f, home: f.fs.PathDir(final), final: final}
	if err := mkdirSynced(f.fs, d.home); err != nil {
		return nil, err
	}
	d.dir = f.fs.PathJoin(d.home, tempPrefix+f.fs.PathBase(final))
	if err := f.fs.MkdirAll(d.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	return d, nil
}

// folderDraft is a folder with a temporary name.
type folderDraft struct {
	fs               vfs.FS
	f                *folder
	home, dir, final string
}

// Create implements Draft. The file's bytes go to the disk as they are written,
// not all at once when it is synced: a burst would delay the log's syncs.
func (d *folderDraft) Create(name string) (DraftFile, error) {
	f, err := d.fs.Create(d.fs.PathJoin(d.dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	return &folderFile{File: vfs.NewSyncingFile(f, vfs.SyncingFileOptions{NoSyncOnClose: true, BytesPerSync: 512 << 10})}, nil
}

// folderFile is a file of a folderDraft.
type folderFile struct {
	vfs.File
	closed bool
}

// Finish implements DraftFile.
func (f *folderFile) Finish() error {
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// Close implements DraftFile.
func (f *folderFile) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.File.Close()
}

// Open implements Draft.
func (d *folderDraft) Open(name string) (io.ReadCloser, error) {
	return d.fs.Open(d.fs.PathJoin(d.dir, name))
}

// Publish implements Draft.
func (d *folderDraft) Publish(manifest []byte) error {
	if err := d.f.write(d.fs.PathJoin(d.dir, manifestName), manifest); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := dirsync.Sync(d.fs, d.dir); err != nil {
		return err
	}
	if _, err := d.fs.Stat(d.final); err == nil {
		damaged := d.fs.PathJoin(d.home, tempPrefix+"damaged-"+d.fs.PathBase(d.final))
		if err := d.fs.Rename(d.final, damaged); err != nil {
			return fmt.Errorf("move the damaged checkpoint away: %w", err)
		}
		if err := d.fs.RemoveAll(damaged); err != nil {
			return fmt.Errorf("remove the damaged checkpoint: %w", err)
		}
	}
	if err := d.fs.Rename(d.dir, d.final); err != nil {
		return fmt.Errorf("give the checkpoint its name: %w", err)
	}
	return dirsync.Sync(d.fs, d.home)
}

// Discard implements Draft.
func (d *folderDraft) Discard() { _ = d.fs.RemoveAll(d.dir) }
