package duplication

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestHungDisk: while the disk under some partitions answers no read of their logs, as many as the pool has slots, another disk's
// partition goes on being loaded; and what hung goes on when its disk does.
func TestHungDisk(t *testing.T) {
	h := newHarness(t, 3, Options{TailBytes: -1})
	hangs, gone := make(chan struct{}, 16), make(chan struct{})
	var armed atomic.Bool
	bad := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && strings.HasPrefix(op.Path, "/bad") && (op.Kind == errorfs.OpFileReadAt || op.Kind == errorfs.OpFileRead) {
			select {
			case hangs <- struct{}{}:
			default:
			}
			<-gone
		}
		return nil
	}))
	const slots = 2
	for i := range slots {
		h.partitions[i] = newTestPartitionOn(t, uint32(i), bad, "/bad", 64<<10)
	}
	for _, p := range h.partitions {
		p.write(2000, 200)
	}
	armed.Store(true)
	h.startReceiver()
	h.startSource()
	release := func() {
		if armed.Swap(false) {
			close(gone)
		}
	}
	defer h.close()
	defer release()
	for range slots {
		<-hangs
	}
	good := h.partitions[slots]
	for range 3 {
		h.targets[slots].mustEqual(t, good)
		good.write(500, 200)
	}
	h.targets[slots].mustEqual(t, good)
	for i := range slots {
		if progress, _ := h.targets[i].DuplicationProgress(clusterA, 0); progress > 0 {
			t.Fatalf("partition %d's log was read, to decree %d", i, progress)
		}
	}
	release()
	for i, p := range h.partitions {
		h.targets[i].mustEqual(t, p)
	}
}
