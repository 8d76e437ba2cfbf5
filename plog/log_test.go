package plog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// open opens a log in memory with segments small enough that a few batches rotate.
func open(t testing.TB, fs vfs.FS, o Options) *Log {
	t.Helper()
	l, err := tryOpen(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryOpen(fs vfs.FS, o Options) (*Log, error) {
	o.FS = fs
	if o.SegmentBytes == 0 {
		o.SegmentBytes = MinSegmentBytes
	}
	return Open("/plog", 7, o)
}

func data(index, term uint64, size int) []byte {
	b := []byte(fmt.Sprintf("%d/%d/", index, term))
	for len(b) < size {
		b = append(b, byte(index*31+term*7+uint64(len(b))))
	}
	return b
}

func batch(first uint64, n int, term uint64, size int) []Entry {
	var es []Entry
	for i := range uint64(n) {
		es = append(es, Entry{Index: first + i, Term: term, Type: uint8(i % 3), Data: data(first+i, term, size)})
	}
	return es
}

// appendSync appends and waits until it is durable, in one of the two ways.
func appendSync(l *Log, es []Entry, hs *HardState) error {
	if len(es)%2 == 1 {
		return l.AppendSync(es, hs)
	}
	done := make(chan error, 1)
	if err := l.Append(es, hs, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func mustAppend(t testing.TB, l *Log, es []Entry, hs *HardState) {
	t.Helper()
	if err := appendSync(l, es, hs); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// check reads everything in every way and compares it with want, whose first decree is base+1.
func check(t testing.TB, l *Log, base uint64, want []Entry) {
	t.Helper()
	if l.FirstIndex() != base+1 || l.LastIndex() != base+uint64(len(want)) {
		t.Fatalf("log is [%d,%d], want [%d,%d]", l.FirstIndex(), l.LastIndex(), base+1, base+uint64(len(want)))
	}
	got, err := l.Entries(base+1, base+1+uint64(len(want)), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
	for _, e := range want {
		if term, err := l.Term(e.Index); err != nil || term != e.Term {
			t.Fatalf("term of %d: %d %v, want %d", e.Index, term, err, e.Term)
		}
	}
	l.SetCommitted(l.LastIndex())
	same(t, readAll(t, l, base+1), want)
}

func same(t testing.TB, got, want []Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if g.Index != w.Index || g.Term != w.Term || g.Type != w.Type || string(g.Data) != string(w.Data) {
			t.Fatalf("entry %d is %d/%d %q, want %d/%d %q", i, g.Index, g.Term, g.Data, w.Index, w.Term, w.Data)
		}
	}
}

func readAll(t testing.TB, l *Log, from uint64) []Entry {
	t.Helper()
	r, err := l.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []Entry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Data = append([]byte(nil), e.Data...)
		out = append(out, e)
	}
}

func TestAppendReadReopen(t *testing.T) {
	for _, cache := range []int64{1, 1 << 20} {
		fs := vfs.NewMem()
		l := open(t, fs, Options{CacheBytes: cache})
		var want []Entry
		for i := range 60 {
			es := batch(l.LastIndex()+1, 1+i%5, uint64(1+i/20), 100+i*7)
			mustAppend(t, l, es, &HardState{Term: uint64(1 + i/20), Vote: 3, Commit: l.LastIndex()})
			want = append(want, es...)
		}
		big := batch(l.LastIndex()+1, 3, 9, 5000)
		mustAppend(t, l, big, nil)
		want = append(want, big...)
		check(t, l, 0, want)
		hs := l.HardState()
		if n := l.Stats().Segments; n < 4 {
			t.Fatalf("%d segments", n)
		}
		closeLog(t, l)
		l = open(t, fs, Options{CacheBytes: cache})
		check(t, l, 0, want)
		if l.HardState() != hs {
			t.Fatalf("hard state %v, want %v", l.HardState(), hs)
		}
		closeLog(t, l)
	}
}

func TestTruncateReleaseReset(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, Options{CacheBytes: 1})
	want := batch(1, 100, 1, 150)
	for i := range 20 {
		mustAppend(t, l, want[i*5:i*5+5], nil)
	}
	reopen := func() {
		t.Helper()
		closeLog(t, l)
		l = open(t, fs, Options{CacheBytes: 1})
	}
	cut := batch(37, 10, 2, 80)
	mustAppend(t, l, cut, &HardState{Term: 2})
	want = append(want[:36:36], cut...)
	if got, err := l.Entries(30, 47, 1<<30); err != nil {
		t.Fatal(err)
	} else {
		same(t, got, want[29:])
	}
	reopen()
	check(t, l, 0, want)
	if err := l.Release(41); err != nil {
		t.Fatal(err)
	}
	check(t, l, 41, want[41:])
	reopen()
	check(t, l, 41, want[41:])
	if term, err := l.Term(41); term != 2 || err != nil {
		t.Fatal(term, err)
	}
	if _, err := l.Term(40); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if _, err := l.NewReader(41); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if err := l.Append(batch(46, 1, 3, 10), nil, nil); !errors.Is(err, ErrCommitted) {
		t.Fatal(err)
	}
	if err := l.Reset(1000, 7); err != nil {
		t.Fatal(err)
	}
	check(t, l, 1000, nil)
	reopen()
	check(t, l, 1000, nil)
	if hs := l.HardState(); hs.Commit != 1000 || hs.Term != 2 {
		t.Fatal(hs)
	}
	want = batch(1001, 4, 7, 900)
	mustAppend(t, l, want, nil)
	reopen()
	check(t, l, 1000, want)
	closeLog(t, l)
}

func TestReaderWaits(t *testing.T) {
	l := open(t, vfs.NewMem(), Options{})
	r, err := l.NewReader(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	got := make(chan Entry)
	go func() {
		defer close(got)
		for range 50 {
			for {
				e, err := r.Next()
				if errors.Is(err, io.EOF) {
					if err := r.Wait(context.Background()); err != nil {
						t.Error(err)
						return
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				got <- e
				break
			}
		}
	}()
	for i := range uint64(50) {
		want := batch(i+1, 1, 1, 200)
		mustAppend(t, l, want, nil)
		l.SetCommitted(i + 1)
		same(t, []Entry{<-got}, want)
	}
	<-got
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}

func sortDurations(d []time.Duration) { slices.Sort(d) }
