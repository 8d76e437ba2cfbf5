package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Parts that hang, with and without heed to the context, must not keep the node from stopping, nor the others from being told.
func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Options{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var told []string
		release := make(chan struct{})
		part := func(name string, run func(ctx context.Context) error) {
			n.onStop(name, func(ctx context.Context) error {
				mu.Lock()
				told = append(told, name)
				mu.Unlock()
				return run(ctx)
			})
		}
		quick := func(context.Context) error { return nil }
		part(dataFolder, quick)
		part("first", quick)
		part("failing", func(context.Context) error { return errors.New("out of order") })
		part("heeding", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		part("deaf", func(context.Context) error { <-release; return nil })
		part("last", quick)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		err = n.Stop(ctx)
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		var late *StopError
		if !errors.As(err, &late) || !slices.Equal(late.Abandoned, []string{"deaf", "heeding"}) || !strings.Contains(err.Error(), "stop failing: out of order") {
			t.Errorf("got %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(told, []string{"last", "deaf", "heeding", "failing", "first"}) {
			t.Errorf("told to stop: %v", told)
		}
		close(release)
	})
}

// hangingFS keeps every sync of a private log waiting while held.
type hangingFS struct {
	vfs.FS
	hold atomic.Pointer[chan struct{}]
}

type hangingFile struct {
	vfs.File
	fs *hangingFS
}

func (fs *hangingFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &hangingFile{f, fs}, nil
}

func (fs *hangingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(fs.FS.Create(name, c))
}

func (fs *hangingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(fs.FS.OpenReadWrite(name, c, o...))
}

func (fs *hangingFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(fs.FS.ReuseForWrite(from, to, c))
}

func (f *hangingFile) wait() {
	if hold := f.fs.hold.Load(); hold != nil {
		<-*hold
	}
}

func (f *hangingFile) Sync() error     { f.wait(); return f.File.Sync() }
func (f *hangingFile) SyncData() error { f.wait(); return f.File.SyncData() }

// A disk that does not answer any more must not keep the process alive, and what was acknowledged is there at the next start.
func TestStopWithASyncThatHangs(t *testing.T) {
	dir := t.TempDir()
	fs := &hangingFS{FS: vfs.Default}
	n, err := New(Options{DataDir: dir, Partitions: 1, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	n.logFS = func(int) vfs.FS { return fs }
	if err := n.Start(t.Context()); err != nil {
		halt(t, n)
		t.Fatal(err)
	}
	if err := client(t, n).Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	fs.hold.Store(&hold)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	err = n.Stop(ctx)
	took := time.Since(began)
	fs.hold.Store(nil)
	close(hold)
	var late *StopError
	if !errors.As(err, &late) || !slices.Contains(late.Abandoned, "replicas") {
		t.Errorf("got %v", err)
	}
	if took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := OpenFolders([]string{dir}, Identity{}); !errors.Is(err, ErrFolderInUse) {
		t.Errorf("the folder was given away while it was in use: %v", err)
	}
	end, done := context.WithTimeout(context.Background(), waitBound)
	defer done()
	if err := errors.Join(n.host.Stop(end), n.syncers[0].Stop(end), n.folders.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := client(t, launch(t, Options{DataDir: dir})).Get(t.Context(), "a").Result(); err != nil || got != "1" {
		t.Errorf("read %q, %v", got, err)
	}
}
