package checkpoint

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// ants starts goroutines of its own when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// fewerChecks shortens an expensive property test outside stress runs.
func fewerChecks(t *testing.T, n string) {
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		return
	}
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	must(t, checks.Value.Set(n))
	t.Cleanup(func() { must(t, checks.Value.Set(before)) })
}

// tb is what testing.TB and rapid.T share.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// cell is what the oracle knows of one key at one decree.
type cell struct {
	value     []byte
	userMeta  byte
	version   uint64
	expiresAt uint64
}

// source is a partition: a real database in managed mode and an oracle of every decree.
type source struct {
	id   uint32
	term uint64
	mark string
	db   *badger.DB

	mu      sync.Mutex
	applied uint64
	changes []map[string]*cell // of decree index + 1
	pins    int
}

func newSource(t tb, id uint32) *source {
	t.Helper()
	db, err := badger.OpenManaged(badger.DefaultOptions("").WithInMemory(true).WithLogger(nil).
		WithMemTableSize(8 << 20).WithNumCompactors(2).WithMetricsEnabled(false).
		WithBlockCacheSize(0).WithCompression(options.None))
	must(t, err)
	return &source{id: id, term: 7, db: db}
}

func (s *source) ID() uint32     { return s.id }
func (s *source) DB() *badger.DB { return s.db }

func (s *source) Mark(uint64) (string, error) { return s.mark, nil }

func (s *source) Term(uint64) (uint64, error) { return s.term, nil }

func (s *source) PinApplied() (uint64, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins++
	var once sync.Once
	return s.applied, func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pins--
		})
	}, nil
}

// Advance applies a decree that changes nothing.
func (s *source) Advance(context.Context, uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied++
	s.changes = append(s.changes, nil)
	return nil
}

// write applies one decree: each key is set to its cell, or deleted for nil.
func (s *source) write(t tb, changes map[string]*cell) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	decree := s.applied + 1
	wb := s.db.NewWriteBatchAt(decree)
	for k, c := range changes {
		if c == nil {
			must(t, wb.Delete([]byte(k)))
			continue
		}
		c.version = decree
		e := badger.NewEntry([]byte(k), c.value).WithMeta(c.userMeta)
		e.ExpiresAt = c.expiresAt
		must(t, wb.SetEntryAt(e, decree))
	}
	must(t, wb.Flush())
	s.applied, s.changes = decree, append(s.changes, changes)
}

// state is the oracle's answer at a decree.
func (s *source) state(decree uint64) map[string]cell {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := make(map[string]cell)
	for _, changes := range s.changes[:decree] {
		for k, c := range changes {
			delete(state, k)
			if c != nil {
				state[k] = *c
			}
		}
	}
	return state
}

// check holds a database at a decree against the oracle.
func (s *source) check(t tb, db *badger.DB, decree uint64) {
	t.Helper()
	got := make(map[string]cell)
	txn := db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		v, err := item.ValueCopy(nil)
		must(t, err)
		if _, twice := got[string(item.Key())]; twice {
			t.Fatalf("key %q has two versions", item.Key())
		}
		got[string(item.Key())] = cell{v, item.UserMeta(), item.Version(), item.ExpiresAt()}
	}
	compareState(t, got, s.state(decree))
}

func compareState(t tb, got, want map[string]cell) {
	t.Helper()
	for k, w := range want {
		g, ok := got[k]
		if !ok {
			t.Fatalf("key %q is missing", k)
		}
		if !bytes.Equal(g.value, w.value) || g.userMeta != w.userMeta || g.version != w.version || g.expiresAt != w.expiresAt {
			t.Fatalf("key %q: got %d bytes, meta %d, version %d, expiry %d; want %d bytes, meta %d, version %d, expiry %d", k,
				len(g.value), g.userMeta, g.version, g.expiresAt, len(w.value), w.userMeta, w.version, w.expiresAt)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Fatalf("key %q should not be there", k)
		}
	}
}

// readAll reads a checkpoint's state through Reader.
func readAll(t tb, s *Store, partition uint32, decree uint64) map[string]cell {
	t.Helper()
	r, err := s.Open(context.Background(), nil, partition, decree)
	must(t, err)
	defer r.Close()
	got := make(map[string]cell)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return got
		}
		must(t, err)
		got[string(e.Key)] = cell{bytes.Clone(e.Value), e.UserMeta, e.Version, e.ExpiresAt}
	}
}

// fill writes about n keys in decrees of a hundred.
func (s *source) fill(t tb, n, valueSize int) {
	t.Helper()
	for done := 0; done < n; {
		d := s.applied + 1
		changes := map[string]*cell{fmt.Sprintf("hot-%d", d%3): {value: []byte("hot"), expiresAt: 1 << 40}}
		for ; done < n && len(changes) < 100; done++ {
			x := (d*100 + uint64(done)) * 2654435761
			v := bytes.Repeat([]byte(fmt.Sprintf("%x.", x)), valueSize/8+1)[:valueSize]
			changes[fmt.Sprintf("key-%05d", x%10007)] = &cell{value: v, userMeta: byte(done)}
		}
		s.write(t, changes)
	}
}

// turn is a Turn that counts, and can interfere.
type turn struct {
	yields  int
	bytes   int
	onYield func(n int) error
}

func (u *turn) Yield(n int) error {
	u.yields++
	u.bytes += n
	if u.onYield != nil {
		return u.onYield(n)
	}
	return nil
}

func (u *turn) Await(ch <-chan struct{}) error { <-ch; return nil }

func (u *turn) AwaitEnd(ch <-chan struct{}) error { <-ch; return nil }

func restore(t *testing.T, s *Store, partition uint32, decree uint64) (*badger.DB, RestoredState) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "0001")
	state, err := s.Restore(context.Background(), nil, partition, decree, dir, RestoreOptions{})
	must(t, err)
	db, err := badger.OpenManaged(badger.DefaultOptions(filepath.Join(dir, "db")).WithLogger(nil))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db, state
}
