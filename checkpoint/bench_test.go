package checkpoint

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// benchSource is a database on disk with n keys of 100 half-compressible bytes.
func benchSource(b *testing.B, n int) *source {
	db, err := badger.OpenManaged(badger.DefaultOptions(b.TempDir()).WithLogger(nil).WithValueThreshold(1 << 20))
	must(b, err)
	b.Cleanup(func() { must(b, db.Close()) })
	src := &source{id: 1, db: db, applied: 1}
	wb := db.NewWriteBatchAt(1)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		v := make([]byte, 100)
		for j := range 50 {
			v[j] = byte(rng.Uint32())
		}
		must(b, wb.SetEntryAt(badger.NewEntry(fmt.Appendf(nil, "key:%012d", i), v), 1))
	}
	must(b, wb.Flush())
	return src
}

const benchKeys = 1_000_000

func BenchmarkCreate(b *testing.B) {
	src := benchSource(b, benchKeys)
	b.SetBytes(benchKeys * 116)
	for b.Loop() {
		_, err := NewStore(nil, b.TempDir()).Create(ctx, &turn{}, src, CreateOptions{})
		must(b, err)
	}
}

func BenchmarkBadgerBackup(b *testing.B) {
	src := benchSource(b, benchKeys)
	b.SetBytes(benchKeys * 116)
	for b.Loop() {
		_, err := src.db.NewStreamAt(1<<62).Backup(io.Discard, 0)
		must(b, err)
	}
}

func BenchmarkRestore(b *testing.B) {
	src := benchSource(b, benchKeys)
	store := NewStore(nil, b.TempDir())
	m, err := store.Create(ctx, nil, src, CreateOptions{})
	must(b, err)
	b.SetBytes(benchKeys * 116)
	for b.Loop() {
		_, err := store.Restore(ctx, nil, 1, m.Decree, b.TempDir(), RestoreOptions{})
		must(b, err)
	}
}
