package plog

import (
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// watchedFS calls read after each read of a file opened through it.
type watchedFS struct {
	vfs.FS
	read func(name string, b []byte, off int64)
}

func (w watchedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w, name}, nil
}

type watchedFile struct {
	vfs.File
	w    watchedFS
	name string
}

func (f watchedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.w.read(f.w.PathBase(f.name), b, off)
	return n, err
}

// TestInspectMovingEnd appends right behind every read of an inspection, so that what it holds is always older than what
// it reads next: a whole log must not look damaged, and the inspection must end.
func TestInspectMovingEnd(t *testing.T) {
	for _, appends := range []int{1, 5, 10 * inspectChase} {
		mem := vfs.NewMem()
		l := open(t, mem, Options{Syncer: startSyncer(t), SegmentBytes: 8 << 20})
		next := uint64(1)
		add := func(size int) {
			mustAppend(t, l, batch(next, 1, 1, size), nil)
			next++
		}
		for l.active().size < 3*scanBuffer {
			add(300 << 10)
		}
		active, seq, left, reads := segmentName(l.active().seq), l.active().seq, appends, 0
		fs := watchedFS{mem, func(name string, b []byte, off int64) {
			if name != active || off < segmentHeaderLen {
				return
			}
			reads++
			if left > 0 {
				left--
				add(100)
				add(100)
			}
		}}
		before := next - 1
		rep, err := inspect(t.Context(), fs, "/plog", func(Item) error { return nil })
		if err != nil || len(rep.Damage) != 0 || rep.Torn != nil {
			t.Fatalf("%d appends: %v, %v, %+v", appends, err, rep.Damage, rep.Torn)
		}
		if l.active().seq != seq || left == appends {
			t.Fatalf("%d appends: nothing tested", appends)
		}
		if rep.Last <= before || rep.Last >= next || reads > 4*inspectChase {
			t.Fatalf("%d appends: %d reads, from %d to %d of %d", appends, reads, before, rep.Last, next-1)
		}
		closeLog(t, l)
	}
}

// TestInspectNewSegment damages the header of a segment that the manifest knows to be empty: only a frame inside shows
// that it was synced.
func TestInspectNewSegment(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewCrashableMem()
	l, s := builtLog(t, mem, syncer)
	for seq, more := l.active().seq, 3; more > 0; {
		es := batch(s.last()+1, 2, 3, 500)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
		if l.active().seq != seq {
			more--
		}
	}
	im := takeImage(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	name := segmentName(l.active().seq)
	closeLog(t, l)
	if m, err := decodeManifest(im[manifestName]); err != nil || m.activeSynced != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	if e := outcome(t, "whole", im, syncer, s); e != nil {
		t.Fatal(e)
	}
	b := append([]byte(nil), im[name]...)
	b[20] ^= 1
	if e := outcome(t, "header", im.with(name, b), syncer, s); e == nil || e.Kind != KindSegmentHeader {
		t.Fatal(e)
	}
}

// TestInspectReplaced takes away a segment whose decrees were all replaced, while the manifest still names it.
func TestInspectReplaced(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, s := builtLog(t, mem, syncer)
	for n := len(l.segs); len(l.segs) < n+2; {
		es := batch(s.last()+1, 2, 3, 500)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
	}
	gone := l.segs[len(l.segs)-2].info()
	var im image
	taken := make(chan struct{})
	// The manifest without the cut is written after done.
	if err := l.Append(batch(gone.first, 2, 4, 50), nil, func(error) { im = takeImage(t, mem); close(taken) }); err != nil {
		t.Fatal(err)
	}
	<-taken
	closeLog(t, l)
	if m, err := decodeManifest(im[manifestName]); err != nil || m.cut != gone.first {
		t.Fatalf("%+v, %v", m, err)
	}
	for what, b := range map[string][]byte{"missing": nil, "short": im[segmentName(gone.seq)][:gone.end-1]} {
		fs := im.with(segmentName(gone.seq), b).restore(t)
		rep, err := inspect(t.Context(), fs, "/plog", func(Item) error { return nil })
		l, errOpen := tryOpen(fs, Options{Syncer: syncer})
		if errOpen == nil {
			_ = l.Close()
		}
		if err != nil || errOpen == nil || len(rep.Damage) == 0 || rep.Damage[0].Segment != gone.seq {
			t.Errorf("%s: Open says %v, the inspection %v, %v", what, errOpen, rep.Damage, err)
		}
	}
}

// TestInspectMovingLog changes the log at every read of an inspection: segments are sealed, released and recycled before its eyes. It ends,
// finds no damage in what is whole, shows each decree once and in order, and says what went away.
func TestInspectMovingLog(t *testing.T) {
	for _, release := range []bool{false, true} {
		mem := vfs.NewMem()
		l := open(t, mem, Options{Syncer: startSyncer(t)})
		next := uint64(1)
		add := func(n int) {
			for range n {
				mustAppend(t, l, batch(next, 1, 1, 900), nil)
				next++
			}
		}
		add(100)
		reads := 0
		fs := watchedFS{mem, func(name string, _ []byte, _ int64) {
			if reads++; name == manifestName {
				return
			}
			add(5)
			if release {
				if err := l.Release(min(l.FirstIndex()+11, next-20)); err != nil {
					t.Fatal(err)
				}
			}
		}}
		last := uint64(0)
		rep, err := inspect(t.Context(), fs, "/plog", func(it Item) error {
			if it.Damage != nil {
				t.Errorf("release %v: %v", release, it.Damage)
			}
			if it.Entry != nil {
				if it.Entry.Index <= last || string(it.Entry.Data) != string(data(it.Entry.Index, 1, 900)) {
					t.Errorf("release %v: decree %d after %d", release, it.Entry.Index, last)
				}
				last = it.Entry.Index
			}
			return nil
		})
		if err != nil || len(rep.Damage) != 0 || last != rep.Last || rep.Torn != nil {
			t.Fatalf("release %v: %v, %+v, last shown is %d", release, err, rep, last)
		}
		if release != (len(rep.Gone) > 0) || !release && rep.Last < 100 || reads > 1000 {
			t.Errorf("release %v: %+v after %d reads", release, rep, reads)
		}
		closeLog(t, l)
	}
}

// TestInspectDamageInMovingLog: what is damaged in a segment that stays is found, though the log changes at every read.
func TestInspectDamageInMovingLog(t *testing.T) {
	mem := vfs.NewMem()
	l := open(t, mem, Options{Syncer: startSyncer(t), CacheBytes: 1 << 20})
	next := uint64(1)
	add := func(n int) {
		for range n {
			mustAppend(t, l, batch(next, 1, 1, 900), nil)
			next++
		}
	}
	add(40)
	sick := segmentName(l.segs[3].seq)
	f, err := mem.OpenReadWrite("/plog/"+sick, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 1000); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	fs := watchedFS{mem, func(name string, _ []byte, _ int64) {
		if name != manifestName {
			add(5)
		}
	}}
	rep, err := inspect(t.Context(), fs, "/plog", func(Item) error { return nil })
	if err != nil || len(rep.Damage) != 1 || rep.Damage[0].Segment != l.segs[3].seq || rep.Damage[0].Kind != KindRecord || len(rep.Gone) != 0 {
		t.Errorf("%v, %+v", err, rep)
	}
	closeLog(t, l)
}

// TestInspectionEnds at the read at which its context does, without taking that for damage.
func TestInspectionEnds(t *testing.T) {
	_, lost, _, _, _ := journalImage(t, 24)
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		reads := 0
		fs := errorfs.Wrap(lost, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileReadAt {
				if reads++; reads == n {
					cancel()
				}
			}
			return nil
		}))
		r, err := inspect(ctx, fs, fleetDir(0), func(it Item) error {
			if it.Damage != nil {
				t.Errorf("read %d: %v", n, it.Damage)
			}
			return nil
		})
		cancel()
		if reads < n {
			if n < 5 || err != nil {
				t.Fatalf("%d reads, %v", reads, err)
			}
			return
		}
		if !errors.Is(err, context.Canceled) || len(r.Damage) > 0 || reads > n+1 {
			t.Fatalf("ended at read %d of %d: %v, %v", n, reads, err, r.Damage)
		}
	}
}
