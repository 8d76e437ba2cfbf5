package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"replicanode/internal/dirsync"
	"replicanode/replica"
)

// Errors of Restore.
var (
	ErrNotEmpty        = errors.New("the folder to restore into is not empty")
	ErrOtherPartitions = errors.New("the checkpoint was taken with another number of partitions")
)

// RestoredState is what a replica needs to know to start from a restored database.
type RestoredState struct {
	ClusterID  uint64 `json:"cluster_id"` // the data came from
	Partition  uint32 `json:"partition"`
	Partitions uint32 `json:"partitions"`
	Decree     uint64 `json:"decree"` // the database is exactly at this decree
	Term       uint64 `json:"term"`   // of that decree
	Entries    uint64 `json:"entries"`
	MaxVersion uint64 `json:"max_version"` // greatest decree that wrote one of the entries
}

// RestoreOptions are the options of Store.Restore.
type RestoreOptions struct {
	// Partitions, when not 0, must be the manifest's.
	Partitions uint32
	// DBName is the name of the database's folder within the replica's, default "db".
	DBName string
	// DBOptions gives the options with which the database is written; default:
	// badger's, without a log, with values below 1 MiB beside their keys.
	DBOptions func(dir string) badger.Options
	// Edit says what the database is to hold other than the checkpoint does; may
	// be nil.
	Edit func(state RestoredState) Edit
	// Finish completes the replica's folder, for instance with an empty log that
	// starts after the decree. The folder still has a temporary name; its files
	// are synced afterwards. May be nil.
	Finish func(replicaDir string, state RestoredState) error
	// Progress counts restored entries and raw bytes; may be nil.
	Progress *Progress
}

// Edit changes what is restored.
type Edit struct {
	// Drop says which keys are left out; nil drops none.
	Drop func(key []byte) bool
	// Put are written at the checkpoint's decree, in ascending order of their
	// keys, in place of the checkpoint's own entries of these keys.
	Put []replica.Record
}

// EnsureDefaults fills in the defaults.
func (o *RestoreOptions) EnsureDefaults() {
	o.DBName = cmp.Or(o.DBName, "db")
	if o.DBOptions == nil {
		o.DBOptions = func(dir string) badger.Options {
			return badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(false).
				WithValueThreshold(1 << 20).WithMetricsEnabled(false)
		}
	}
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
}

// Restore makes the replica's folder replicaDir, which must not exist or be
// empty, from the checkpoint and its ancestors. Everything is written beside it
// under the name replicaDir + ".restoring" and renamed when it is complete and
// synced, and every entry has been read back; a leftover of an interrupted
// restore is replaced. turn may be nil.
//
// The target is on the real file system, whatever the store's is: badger knows
// no other.
func (s *Store) Restore(ctx context.Context, turn Turn, partition uint32, decree uint64, replicaDir string, o RestoreOptions) (RestoredState, error) {
	o.EnsureDefaults()
	if err := checkEmpty(replicaDir); err != nil {
		return RestoredState{}, err
	}
	r, err := s.Open(ctx, turn, partition, decree)
	if err != nil {
		return RestoredState{}, fmt.Errorf("open checkpoint: %w", err)
	}
	defer r.Close()
	m := r.Manifest()
	if o.Partitions != 0 && m.Partitions != 0 && o.Partitions != m.Partitions {
		return RestoredState{}, fmt.Errorf("%w: %d, not %d", ErrOtherPartitions, m.Partitions, o.Partitions)
	}
	state := RestoredState{ClusterID: m.ClusterID, Partition: partition, Partitions: m.Partitions, Decree: m.Decree, Term: m.Term}
	work := replicaDir + ".restoring"
	if err := os.RemoveAll(work); err != nil {
		return RestoredState{}, fmt.Errorf("remove the leftover of an interrupted restore: %w", err)
	}
	err = restoreInto(work, r, &state, &o)
	if err == nil {
		err = publishRestored(work, replicaDir)
	}
	if err != nil {
		return RestoredState{}, errors.Join(
			fmt.Errorf("restore partition %d at decree %d: %w", partition, decree, err), os.RemoveAll(work))
	}
	return state, nil
}

func checkEmpty(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at the folder to restore into: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s", ErrNotEmpty, dir)
	}
	return nil
}

func restoreInto(work string, r *Reader, state *RestoredState, o *RestoreOptions) error {
	dbDir := filepath.Join(work, o.DBName)
	if err := os.MkdirAll(dbDir, 0o755); err != nil {
		return err
	}
	db, err := badger.OpenManaged(o.DBOptions(dbDir))
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	entries := &editedEntries{r: r, decree: state.Decree}
	if o.Edit != nil {
		entries.edit = o.Edit(*state)
	}
	written, err := load(db, entries, state, o.Progress)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := readBackDB(o.DBOptions(dbDir), written, r); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if o.Finish == nil {
		return nil
	}
	if err := o.Finish(work, *state); err != nil {
		return fmt.Errorf("complete the replica's folder: %w", err)
	}
	return nil
}

// editedEntries are a checkpoint's entries with an Edit made to them.
type editedEntries struct {
	r      *Reader
	edit   Edit
	decree uint64
	next   *Entry // of the checkpoint, not returned yet
	ended  bool
}

// Next returns the next entry, valid until the call after; io.EOF at the end.
func (e *editedEntries) Next() (*Entry, error) {
	if err := e.fetch(); err != nil {
		return nil, err
	}
	if len(e.edit.Put) > 0 {
		put := e.edit.Put[0]
		order := -1
		if e.next != nil {
			order = bytes.Compare(put.Key, e.next.Key)
		}
		if order <= 0 {
			if order == 0 {
				e.next = nil
			}
			e.edit.Put = e.edit.Put[1:]
			return &Entry{Kind: Put, Version: e.decree, Key: put.Key, Value: put.Value}, nil
		}
	}
	next := e.next
	e.next = nil
	if next == nil {
		return nil, io.EOF
	}
	return next, nil
}

// fetch reads the checkpoint's next entry that stays, unless it is there already.
func (e *editedEntries) fetch() error {
	for e.next == nil && !e.ended {
		entry, err := e.r.Next()
		switch {
		case err == io.EOF:
			e.ended = true
		case err != nil:
			return err
		case e.edit.Drop == nil || !e.edit.Drop(entry.Key):
			e.next = entry
		}
	}
	return nil
}

// load writes the entries straight into sorted tables, each with its version.
func load(db *badger.DB, r *editedEntries, state *RestoredState, progress *Progress) (written digest, err error) {
	sw := db.NewStreamWriter()
	if err := sw.Prepare(); err != nil {
		return written, fmt.Errorf("prepare database: %w", err)
	}
	finished := false
	defer func() {
		if !finished {
			sw.Cancel()
		}
	}()
	const batchBytes = 1 << 20
	buf := z.NewBuffer(2*batchBytes, "checkpoint restore")
	defer func() { err = errors.Join(err, buf.Release()) }()
	kv := &pb.KV{UserMeta: make([]byte, 1), StreamId: 1}
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return written, err
		}
		written.add(e)
		kv.Key, kv.Value, kv.UserMeta[0], kv.Version, kv.ExpiresAt = e.Key, e.Value, e.UserMeta, e.Version, e.ExpiresAt
		badger.KVToBuffer(kv, buf)
		state.Entries++
		state.MaxVersion = max(state.MaxVersion, e.Version)
		progress.Entries.Add(1)
		progress.RawBytes.Add(uint64(len(e.Key) + len(e.Value)))
		if buf.LenNoPadding() >= batchBytes {
			if err := sw.Write(buf); err != nil {
				return written, fmt.Errorf("write entries: %w", err)
			}
			buf.Reset()
		}
	}
	if err := sw.Write(buf); err != nil {
		return written, fmt.Errorf("write entries: %w", err)
	}
	finished = true
	if err := sw.Flush(); err != nil {
		return written, fmt.Errorf("finish database: %w", err)
	}
	return written, nil
}

// digest stands for a sequence of entries.
type digest struct {
	entries uint64
	crc     uint32
	buf     []byte
}

func (d *digest) add(e *Entry) {
	d.buf = appendEntryHead(d.buf[:0], e)
	d.crc = crc32.Update(crc32.Update(d.crc, castagnoli, d.buf), castagnoli, e.Value)
	d.entries++
}

// readBackDB opens the restored database as a node would, and holds every entry
// in it against what was written.
func readBackDB(o badger.Options, written digest, r *Reader) (err error) {
	db, err := badger.OpenManaged(o.WithReadOnly(true))
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	txn := db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true, PrefetchValues: false})
	defer it.Close()
	var got digest
	e := Entry{Kind: Put}
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		e.UserMeta, e.Version, e.ExpiresAt, e.Key = item.UserMeta(), item.Version(), item.ExpiresAt(), item.Key()
		if err := item.Value(func(v []byte) error { e.Value = v; got.add(&e); return nil }); err != nil {
			return fmt.Errorf("read value of %q: %w", e.Key, err)
		}
		if err := r.slices.step(); err != nil {
			return err
		}
	}
	if got.entries != written.entries || got.crc != written.crc {
		return fmt.Errorf("the database holds %d entries with digest %s, not %d with %s",
			got.entries, crcString(got.crc), written.entries, crcString(written.crc))
	}
	return nil
}

// publishRestored syncs everything below work and gives it its name.
func publishRestored(work, replicaDir string) error {
	err := filepath.WalkDir(work, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return dirsync.Sync(vfs.Default, path)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return fmt.Errorf("sync the replica's folder: %w", err)
	}
	if err := os.Remove(replicaDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make way for the replica's folder: %w", err)
	}
	if err := os.Rename(work, replicaDir); err != nil {
		return fmt.Errorf("give the replica's folder its name: %w", err)
	}
	return dirsync.Sync(vfs.Default, filepath.Dir(replicaDir))
}
