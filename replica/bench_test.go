package replica

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// benchSet is a plain SET that proposes itself again until the benchmark has had enough.
type benchSet struct {
	h     *testNode
	left  *atomic.Int64
	done  chan struct{}
	key   [16]byte
	value []byte
	seed  uint64
}

func (c *benchSet) Execute(tx *Tx) { _ = tx.Put(c.key[:], c.value, 0) }

func (c *benchSet) Finish(err error) {
	if err != nil {
		panic(err)
	}
	c.next()
}

func (c *benchSet) next() {
	if c.left.Add(-1) < 0 {
		c.done <- struct{}{}
		return
	}
	c.seed = c.seed*6364136223846793005 + 1442695040888963407
	copy(c.key[:], "key:")
	binary.BigEndian.PutUint64(c.key[8:], c.seed>>44)
	if err := c.h.Route(c.key[:]).Propose(c); err != nil {
		panic(err)
	}
}

// BenchmarkProposeSet is 800 SETs of 100 bytes in flight over 8 partitions.
func BenchmarkProposeSet(b *testing.B) { benchmarkSet(b, 800) }

// BenchmarkProposeSet50 is the same with 50 in flight.
func BenchmarkProposeSet50(b *testing.B) { benchmarkSet(b, 50) }

// cpuTime is what the process has used: on a shared machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkSet(b *testing.B, inflight int) {
	n, err := openNode(Options{Dir: b.TempDir(), Partitions: 8, ClusterID: 7})
	if err != nil {
		b.Fatal(err)
	}
	if err := n.WaitReady(context.Background()); err != nil {
		b.Fatal(err)
	}
	defer n.stop(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan struct{}, inflight)
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime()
	for i := range inflight {
		c := &benchSet{h: n, left: &left, done: done, value: make([]byte, 100), seed: uint64(i) * 7919}
		c.next()
	}
	for range inflight {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
	decrees := uint64(0)
	for _, p := range n.Partitions() {
		decrees += p.Applied()
	}
	b.ReportMetric(float64(b.N)/float64(decrees), "sets/decree")
}
