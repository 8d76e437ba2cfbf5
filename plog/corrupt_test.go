package plog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// image is the content of a log's folder.
type image map[string][]byte

func takeImage(t testing.TB, fs vfs.FS) image {
	t.Helper()
	names, err := fs.List("/plog")
	if err != nil {
		t.Fatal(err)
	}
	im := image{}
	for _, name := range names {
		f, err := fs.Open("/plog/" + name)
		if isNotExist(err) {
			continue // renamed in the background
		}
		if err != nil {
			t.Fatal(err)
		}
		if im[name], err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return im
}

func (im image) restore(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/plog", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		f, err := fs.Create("/plog/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(b)); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return fs
}

// with returns a copy of im in which name has other content; nil removes it.
func (im image) with(name string, b []byte) image {
	out := maps.Clone(im)
	out[name] = b
	if b == nil {
		delete(out, name)
	}
	return out
}

// builtLog is a log of three segments, with a release, a cut and hard states, and what it holds.
func builtLog(t testing.TB, fs vfs.FS, syncer *Syncer) (*Log, state) {
	t.Helper()
	l := open(t, fs, Options{Syncer: syncer, CacheBytes: 1})
	var s state
	add := func(es []Entry, hs *HardState) {
		t.Helper()
		mustAppend(t, l, es, hs)
		s.append(es, hs)
	}
	for range 5 {
		add(batch(s.last()+1, 2, 1, 400), &HardState{Term: 1, Vote: 2})
	}
	add(batch(9, 3, 2, 300), &HardState{Term: 2, Vote: 2, Commit: 4})
	for range 6 {
		add(batch(s.last()+1, 2, 2, 350), nil)
	}
	if err := l.Release(2); err != nil {
		t.Fatal(err)
	}
	s.release(2)
	if n := l.Stats().Segments; n != 3 {
		t.Fatalf("%d segments", n)
	}
	return l, s
}

// outcome opens a damaged log and reads it in every way. It returns the damage found, nil when all is there and right;
// anything else fails the test, as does an inspection that comes to another verdict.
func outcome(t testing.TB, what string, im image, syncer *Syncer, s state) *ErrCorrupt {
	t.Helper()
	e := opened(t, what, im, syncer, s)
	rep, err := inspect(t.Context(), im.restore(t), "/plog", func(Item) error { return nil })
	if err != nil && !errors.As(err, new(*ErrCorrupt)) || (e != nil) != (err != nil || len(rep.Damage) > 0) {
		t.Fatalf("%s: %v, but an inspection finds %v, %v", what, e, rep.Damage, err)
	}
	return e
}

// opened is the part of outcome that opens the log.
func opened(t testing.TB, what string, im image, syncer *Syncer, s state) *ErrCorrupt {
	t.Helper()
	l, err := tryOpen(im.restore(t), Options{Syncer: syncer, CacheBytes: 1})
	var e *ErrCorrupt
	if errors.As(err, &e) {
		return e
	}
	if err != nil {
		t.Fatalf("%s: %v is not an ErrCorrupt", what, err)
	}
	defer func() { _ = l.Close() }()
	l.SetCommitted(s.last())
	errRead := readCompare(t, what, l, s)
	err = s.diff(l)
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("%s: %v", what, err)
	}
	if errRead != nil && e == nil {
		return errRead
	}
	return e
}

// readCompare streams the log; every entry it gets must be right.
func readCompare(t testing.TB, what string, l *Log, s state) *ErrCorrupt {
	t.Helper()
	r, err := l.NewReader(s.base + 1)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	for i := 0; ; i++ {
		e, err := r.Next()
		var c *ErrCorrupt
		switch {
		case errors.As(err, &c):
			return c
		case errors.Is(err, io.EOF) && i == len(s.entries):
			return nil
		case err != nil:
			t.Fatalf("%s: entry %d: %v", what, i, err)
		case i >= len(s.entries) || e.Index != s.entries[i].Index || e.Term != s.entries[i].Term || !bytes.Equal(e.Data, s.entries[i].Data):
			t.Fatalf("%s: entry %d is wrong: %d/%d", what, i, e.Index, e.Term)
		}
	}
}

// TestBitFlips flips every bit of a log in turn: what is read is right, or a typed error names the place.
func TestBitFlips(t *testing.T) {
	syncer := startSyncer(t)
	fs := vfs.NewMem()
	l, s := builtLog(t, fs, syncer)
	closeLog(t, l)
	im := takeImage(t, fs)
	m, err := readManifest(fs, "/plog")
	if err != nil {
		t.Fatal(err)
	}
	step := flipStep(83)
	found, harmless := 0, 0
	for name, b := range im {
		seq, isSegment := parseSegmentName(name)
		for bit := 0; bit < len(b)*8; bit += step {
			flipped := slices.Clone(b)
			flipped[bit/8] ^= 1 << (bit % 8)
			e := outcome(t, name, im.with(name, flipped), syncer, s)
			if e == nil {
				harmless++
				if used := usedBytes(m, name); int64(bit/8) < used {
					t.Fatalf("bit %d of %s, inside the %d bytes in use, was not noticed", bit, name, used)
				}
				continue
			}
			found++
			if isSegment && (e.Segment != seq || e.Offset > int64(bit/8)) || !isSegment && e.Segment != 0 {
				t.Fatalf("bit %d of %s: damage placed at %v", bit, name, e)
			}
		}
	}
	t.Logf("%d found, %d harmless", found, harmless)
	if found == 0 {
		t.Fatal("no damage found")
	}
}

// flipStep is the distance of the places a test tries: all of them under stress.
func flipStep(plain int) int {
	if stress {
		return 1
	}
	return plain
}

// usedBytes is how much of a file holds the log's data.
func usedBytes(m *manifest, name string) int64 {
	if name == manifestName {
		return manifestFixed
	}
	seq, _ := parseSegmentName(name)
	if seq == m.activeSeq {
		return m.activeSynced
	}
	for i := range m.segments {
		if m.segments[i].seq == seq {
			return m.segments[i].end
		}
	}
	return 0
}

// TestBitFlipsAfterCrash does the same to a log that was not closed. Only the last group may vanish.
func TestBitFlipsAfterCrash(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewCrashableMem()
	l, s := builtLog(t, mem, syncer)
	before := s
	lastGroup := l.done.off
	es := batch(s.last()+1, 2, 2, 100)
	mustAppend(t, l, es, nil)
	s.append(es, nil)
	im := takeImage(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	active := segmentName(l.done.seq)
	closeLog(t, l)
	for bit := 0; bit < len(im[active])*8; bit += flipStep(61) {
		flipped := slices.Clone(im[active])
		flipped[bit/8] ^= 1 << (bit % 8)
		broken := im.with(active, flipped)
		want := s
		if int64(bit/8) >= lastGroup {
			l, err := tryOpen(broken.restore(t), Options{Syncer: syncer})
			if err != nil {
				t.Fatalf("bit %d: %v", bit, err)
			}
			if l.LastIndex() == before.last() {
				want = before
			}
			_ = l.Close()
		}
		if e := outcome(t, active, broken, syncer, want); e == nil && int64(bit/8) < lastGroup {
			t.Fatalf("bit %d of the active segment was not noticed", bit)
		}
	}
}

// TestFilesMixedUp removes, swaps, duplicates and replaces files by older ones.
func TestFilesMixedUp(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, s := builtLog(t, mem, syncer)
	older := takeImage(t, mem)
	for range 12 {
		es := batch(s.last()+1, 2, 3, 500)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
	}
	closeLog(t, l)
	im := takeImage(t, mem)
	m, err := readManifest(mem, "/plog")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{manifestName, segmentName(m.activeSeq)}
	for i := range m.segments {
		names = append(names, segmentName(m.segments[i].seq))
	}
	expect := func(what string, im image, kinds ...Kind) {
		t.Helper()
		e := outcome(t, what, im, syncer, s)
		if e == nil {
			t.Fatalf("%s was not noticed", what)
		}
		if !slices.Contains(kinds, e.Kind) {
			t.Fatalf("%s: %v, want %v", what, e, kinds)
		}
	}
	for _, name := range names {
		if name == manifestName {
			expect("no manifest", im.with(name, nil), KindManifestMissing)
			expect("older manifest", im.with(name, older[name]), KindManifestStale, KindSegmentMissing)
			expect("empty manifest", im.with(name, []byte{}), KindManifest)
			continue
		}
		expect("no "+name, im.with(name, nil), KindSegmentMissing)
		expect("empty "+name, im.with(name, []byte{}), KindSegmentTruncated)
		expect("short "+name, im.with(name, im[name][:len(im[name])/2]), KindSegmentTruncated)
		expect("zeroed "+name, im.with(name, make([]byte, len(im[name]))), KindSegmentHeader)
		if b := older[name]; b != nil && !bytes.Equal(b, im[name]) {
			expect("older "+name, im.with(name, b), KindFrame, KindSegmentTruncated, KindSegmentHeader, KindLink)
		}
		for _, other := range names {
			if other != name && strings.HasSuffix(other, segmentSuffix) {
				expect(other+" for "+name, im.with(name, im[other]), KindSegmentHeader)
			}
		}
	}
	active := segmentName(m.activeSeq)
	expect("cut behind its data "+active, im.with(active, im[active][:m.activeSynced+10]), KindSegmentTruncated)
	if e := outcome(t, "duplicate", im.with(segmentName(m.activeSeq+5), im[segmentName(m.activeSeq)]), syncer, s); e != nil {
		t.Fatalf("a stray copy: %v", e)
	}
	if _, err := Open("/plog", 8, Options{FS: im.restore(t)}); !errors.As(err, new(*ErrCorrupt)) {
		t.Fatalf("another partition: %v", err)
	}
}

// TestTornTail cuts the log at every byte of its last two batches, with different bytes behind: the tail is cut to a
// whole batch, everything before is there, and the log goes on.
func TestTornTail(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewCrashableMem()
	l, s0 := builtLog(t, mem, syncer)
	states, ends := []state{s0}, []int64{l.done.off}
	s := s0
	for i := range 2 {
		es := batch(s.last()+1, 2, 2, 120+i)
		mustAppend(t, l, es, &HardState{Term: 3, Vote: uint64(i)})
		s.append(es, &HardState{Term: 3, Vote: uint64(i)})
		states, ends = append(states, s), append(ends, l.done.off)
	}
	name := segmentName(l.done.seq)
	im := takeImage(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	closeLog(t, l)
	rng := rand.New(rand.NewPCG(1, 1))
	garbage := make([]byte, len(im[name]))
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	older := slices.Concat(im[segmentName(1)], im[segmentName(1)])
	fills := map[string]func(b []byte, at int64){
		"zeros":    func(b []byte, at int64) { clear(b[at:]) },
		"garbage":  func(b []byte, at int64) { copy(b[at:], garbage) },
		"recycled": func(b []byte, at int64) { copy(b[at:], older[at:]) },
		"shifted":  func(b []byte, at int64) { copy(b[at:], im[name][ends[0]-50:]) },
	}
	for what, fill := range fills {
		for at := ends[0]; at <= ends[2]; at += int64(flipStep(5)) {
			b := slices.Clone(im[name])
			fill(b, at)
			fs := im.with(name, b).restore(t)
			want := 0
			for want < 2 && ends[want+1] <= at {
				want++
			}
			l, err := tryOpen(fs, Options{Syncer: syncer, CacheBytes: 1})
			if err != nil {
				t.Fatalf("%s from %d: %v", what, at, err)
			}
			got := states[want]
			if err := got.diff(l); err != nil {
				t.Fatalf("%s from %d: %v", what, at, err)
			}
			es := batch(got.last()+1, 1, 4, 60)
			mustAppend(t, l, es, nil)
			got.append(es, nil)
			closeLog(t, l)
			l = open(t, fs, Options{Syncer: syncer, CacheBytes: 1})
			if err := got.diff(l); err != nil {
				t.Fatalf("%s from %d, one more batch: %v", what, at, err)
			}
			closeLog(t, l)
		}
	}
}

// TestInspect compares what Verify and Dump find in a whole log, a damaged one and a live one.
func TestInspect(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, s := builtLog(t, mem, syncer)
	collect := func(fs vfs.FS) (Report, []Entry) {
		t.Helper()
		var out []Entry
		rep, err := inspect(t.Context(), fs, "/plog", func(it Item) error {
			if it.Entry != nil {
				e := *it.Entry
				e.Data = bytes.Clone(e.Data)
				out = append(out, e)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return rep, out
	}
	rep, got := collect(mem)
	if len(rep.Damage) != 0 || rep.First != 3 || rep.Last != s.last() || rep.HardState != s.hs || rep.Torn != nil {
		t.Fatalf("%+v", rep)
	}
	same(t, got, s.entries)
	closeLog(t, l)
	rep, got = collect(mem)
	if len(rep.Damage) != 0 || rep.Records != uint64(len(s.entries)) {
		t.Fatalf("%+v", rep)
	}
	same(t, got, s.entries)

	im := takeImage(t, mem)
	name := segmentName(rep.Segments[1].Segment)
	b := slices.Clone(im[name])
	b[segmentHeaderLen+frameHeaderLen+hardStateLen+20] ^= 1
	rep, got = collect(im.with(name, b).restore(t))
	if len(rep.Damage) != 1 || rep.Damage[0].Kind != KindRecord || rep.Damage[0].Offset != segmentHeaderLen {
		t.Fatalf("%+v", rep)
	}
	if len(got) == 0 || len(got) >= len(s.entries) || got[len(got)-1].Index != s.last() {
		t.Fatalf("%d entries behind damage", len(got))
	}
	rep, got = collect(im.with(manifestName, b[:200]).restore(t))
	if len(rep.Damage) != 1 || rep.Damage[0].Kind != KindManifest || got[len(got)-1].Index != s.last() {
		t.Fatalf("%+v", rep)
	}
	if _, err := Verify(t.Context(), t.TempDir()); err == nil {
		t.Fatal("an empty folder is no log")
	}
}

// sealManifest gives arbitrary manifest bytes a right checksum, so that what lies behind it is tested too.
func sealManifest(b []byte) {
	body := b[:len(b)-manifestTrailer]
	binary.LittleEndian.PutUint32(b[len(body):], crc32.Checksum(body, castagnoli))
}

// TestOtherVersion: a file that another version of the format wrote whole is not called damaged, but its version named.
func TestOtherVersion(t *testing.T) {
	syncer := startSyncer(t)
	mem := vfs.NewMem()
	l, s := builtLog(t, mem, syncer)
	sealed, active := segmentName(l.segs[1].seq), segmentName(l.active().seq)
	closeLog(t, l)
	im := takeImage(t, mem)
	other := func(name string, seal bool) image {
		b := slices.Clone(im[name])
		b[12] = formatVersion + 1
		if name == manifestName {
			b[12], b[8] = im[name][12], manifestVersion+1
			sealManifest(b)
		} else if seal {
			h, _ := parseSegmentHeader(im[name])
			binary.LittleEndian.PutUint32(b, crc32.Update(frameSeed(segmentKey(h.partition, h.seq), 0), castagnoli, b[4:segmentHeaderLen]))
		}
		return im.with(name, b)
	}
	for _, name := range []string{manifestName, active, sealed} {
		im := other(name, true)
		l, err := tryOpen(im.restore(t), Options{Syncer: syncer, CacheBytes: 1})
		if err == nil && name == sealed { // which Open does not read
			_, err = l.Entries(s.base+1, s.last()+1, 1<<40)
			closeLog(t, l)
		}
		if !errors.Is(err, ErrVersion) || errors.As(err, new(*ErrCorrupt)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := inspect(t.Context(), im.restore(t), "/plog", func(Item) error { return nil }); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: the inspection says %v", name, err)
		}
	}
	if e := outcome(t, "a version that rotted", other(active, false), syncer, s); e == nil || e.Kind != KindSegmentHeader {
		t.Errorf("a version that rotted: %v", e)
	}
}
