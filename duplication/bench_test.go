package duplication

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// countingTarget confirms at once and keeps nothing.
type countingTarget struct{ *testTarget }

func (c countingTarget) ApplyDuplicated(_ context.Context, b mutation.Batch, done func(uint64, error)) {
	c.mu.Lock()
	c.progress = max(c.progress, b.Last)
	c.changed.Broadcast()
	c.mu.Unlock()
	done(b.Last, nil)
}

func benchmark(b *testing.B, o Options, size int, prepared bool) {
	h := newHarness(b, 1, o)
	defer h.close()
	p := newTestPartitionOn(b, 0, vfs.Default, b.TempDir(), 16<<20)
	h.partitions[0] = p
	target := countingTarget{h.targets[0]}
	h.startReceiverWith(ReceiverOptions{ClusterID: clusterB, PartitionCount: 1, Target: func(uint32) Target { return target }})
	b.SetBytes(int64(size))
	if prepared {
		p.fill(b.N, size)
	}
	b.ResetTimer()
	h.startSource()
	if !prepared {
		p.fill(b.N, size)
	}
	last := p.log.LastIndex()
	target.await(b, "all", func() bool { return target.progress >= last })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// fill appends n mutations, without remembering them.
func (p *testPartition) fill(n, size int) {
	mutationData := p.user(clusterA, size)
	for n > 0 {
		count := min(n, 256)
		entries := make([]plog.Entry, count)
		for i := range entries {
			entries[i] = plog.Entry{Index: p.log.LastIndex() + uint64(i) + 1, Term: 1, Data: mutationData}
		}
		durable := make(chan error, 1)
		if err := p.log.Append(entries, nil, func(err error) { durable <- err }); err != nil {
			panic(err)
		}
		if err := <-durable; err != nil {
			panic(err)
		}
		p.log.SetCommitted(entries[count-1].Index)
		p.mu.Lock()
		if p.subscriber != nil {
			p.subscriber.Applied(entries)
		}
		p.mu.Unlock()
		n -= count
	}
}

func BenchmarkTail100B(b *testing.B) { benchmark(b, Options{}, 100, false) }
func BenchmarkTail1KiB(b *testing.B) { benchmark(b, Options{}, 1024, false) }
func BenchmarkLog100B(b *testing.B)  { benchmark(b, Options{TailBytes: -1}, 100, true) }
func BenchmarkLog1KiB(b *testing.B)  { benchmark(b, Options{TailBytes: -1}, 1024, true) }
