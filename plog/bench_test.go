package plog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func benchLog(b *testing.B, o Options) *Log {
	b.Helper()
	l, err := Open(filepath.Join(b.TempDir(), "plog"), 1, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	return l
}

func benchBatch(n, size int) []Entry {
	es := make([]Entry, n)
	for i := range es {
		es[i] = Entry{Term: 1, Data: make([]byte, size)}
	}
	return es
}

func renumber(es []Entry, first uint64) {
	for i := range es {
		es[i].Index = first + uint64(i)
	}
}

// BenchmarkAppend waits for each batch before the next one. Releasing as it goes keeps it on recycled space.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("bytes=%d/batch=%d", size, n), func(b *testing.B) {
				l := benchLog(b, Options{})
				es := benchBatch(n, size)
				segs := 0
				b.ReportAllocs()
				for b.Loop() {
					renumber(es, l.LastIndex()+1)
					if err := l.AppendSync(es, nil); err != nil {
						b.Fatal(err)
					}
					if l.LastIndex()%1024 == 0 {
						if s := l.Stats().Segments; s > 2 && s != segs {
							segs = s
							_ = l.Release(l.LastIndex() - 1)
						}
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkBare is what the disk can do: the same bytes written in place over a written file, and fdatasync.
func BenchmarkBare(b *testing.B) {
	for _, n := range []int{109, 64 * 109, 1033, 64 * 1033} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "f"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			const size = 16 << 20
			if _, err := f.Write(make([]byte, size)); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			buf, off := make([]byte, n), int64(0)
			for b.Loop() {
				if off+int64(n) > size {
					off = 0
				}
				if _, err := f.WriteAt(buf, off); err != nil {
					b.Fatal(err)
				}
				if err := unix.Fdatasync(int(f.Fd())); err != nil {
					b.Fatal(err)
				}
				off += int64(n)
			}
		})
	}
}

// BenchmarkAppenders has many goroutines append single records and wait: 64 to one log, or one to each of 64 logs.
func BenchmarkAppenders(b *testing.B) {
	for _, c := range []struct {
		logs int
		own  bool // each log syncs by itself
	}{{1, false}, {64, false}, {64, true}} {
		b.Run(fmt.Sprintf("appenders=64/logs=%d/own=%v", c.logs, c.own), func(b *testing.B) {
			logs := c.logs
			syncer := NewSyncer(SyncerOptions{Workers: benchWorkers()})
			if err := syncer.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { syncer.stop() })
			ls := make([]*Log, logs)
			for i := range ls {
				o := Options{Syncer: syncer, SegmentBytes: 4 << 20}
				if c.own {
					o.Syncer = nil
				}
				ls[i] = benchLog(b, o)
			}
			locks := make([]sync.Mutex, logs)
			waits := make([][]time.Duration, 64)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for g := range 64 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					l, mu := ls[g%logs], &locks[g%logs]
					es, done := benchBatch(1, 100), make(chan error, 1)
					ack := func(err error) { done <- err }
					for i := g; i < b.N; i += 64 {
						t := time.Now()
						mu.Lock()
						renumber(es, l.LastIndex()+1)
						err := l.Append(es, nil, ack)
						mu.Unlock()
						if err == nil {
							err = <-done
						}
						if err != nil {
							b.Error(err)
							return
						}
						waits[g] = append(waits[g], time.Since(t))
					}
				}()
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			reportPercentiles(b, waits)
		})
	}
}

func reportPercentiles(b *testing.B, waits [][]time.Duration) {
	var all []time.Duration
	for _, w := range waits {
		all = append(all, w...)
	}
	sortDurations(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkRead streams a log that the page cache holds.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			l := benchLog(b, Options{})
			fillLog(b, l, size, 64<<20)
			l.SetCommitted(l.LastIndex())
			var r *Reader
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if r == nil {
					var err error
					if r, err = l.NewReader(1); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := r.Next(); errors.Is(err, io.EOF) {
					_ = r.Close()
					r = nil
				} else if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func fillLog(b *testing.B, l *Log, size, bytes int) {
	b.Helper()
	es := benchBatch(256, size)
	for n := 0; n < bytes; n += 256 * size {
		renumber(es, l.LastIndex()+1)
		if err := l.Append(es, nil, nil); err != nil {
			b.Fatal(err)
		}
		if l.Stats().Pending > 8<<20 {
			if err := appendSync(l, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := appendSync(l, nil, nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen opens a log of 1 GiB.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "plog")
	l, err := Open(dir, 1, Options{})
	if err != nil {
		b.Fatal(err)
	}
	fillLog(b, l, 1024, 1<<30)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l, err := Open(dir, 1, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = l.Close()
		b.StartTimer()
	}
}

func benchWorkers() int {
	n, _ := strconv.Atoi(os.Getenv("W"))
	return n
}
