package checkpoint

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRemovalsArePaced removes checkpoints, and what an interrupted one left, no faster than the rate, which sees the backlog.
func TestRemovalsArePaced(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	fs := vfs.NewMem()
	store := NewStore(fs, "ckpt")
	var bytes int64 // of the first two
	for i := range 4 {
		src.fill(t, 50, 1000)
		m, err := store.Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10})
		must(t, err)
		if i < 2 {
			bytes += m.Bytes
		}
	}
	const rate = 1000
	synctest.Test(t, func(t *testing.T) {
		var backlogs []int64
		store := NewStore(fs, "ckpt")
		store.PaceRemovals(func(backlog int64) float64 {
			backlogs = append(backlogs, backlog)
			return rate
		})
		begun := time.Now()
		removed, err := store.Prune(ctx, nil, 1, Retention{KeepLast: 2}, begun)
		must(t, err)
		if took, least := time.Since(begun), time.Duration(bytes)*time.Second/rate; len(removed) != 2 || took < least {
			t.Fatalf("%d checkpoints removed in %v, at least %v were expected", len(removed), took, least)
		}
		if n := len(backlogs); n < 10 || backlogs[0] != bytes || backlogs[n-1] >= bytes || store.removals.backlog != 0 {
			t.Fatalf("backlogs %v, and %d at the end", backlogs, store.removals.backlog)
		}
		must(t, fs.MkdirAll("ckpt/0001/tmp-left", 0o755))
		writeFile(t, fs, "ckpt/0001/tmp-left/000001.chunk", make([]byte, 5*rate))
		begun = time.Now()
		must(t, store.Clean(ctx, nil, 1))
		if took := time.Since(begun); took < 5*time.Second || took > 6*time.Second {
			t.Fatalf("a leftover of 5 seconds took %v", took)
		}
	})
}
