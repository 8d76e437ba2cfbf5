package plog

import (
	"errors"
	"math"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func toRaft(es []Entry) []*pb.Entry {
	var out []*pb.Entry
	for i := range es {
		e := &es[i]
		r := &pb.Entry{Index: &e.Index, Term: &e.Term, Type: pb.EntryType(e.Type).Enum()}
		if len(e.Data) > 0 {
			r.Data = e.Data
		}
		out = append(out, r)
	}
	return out
}

// storageError maps the log's errors to Raft's.
func storageError(err error) error {
	switch {
	case errors.Is(err, ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, ErrUnavailable):
		return raft.ErrUnavailable
	}
	return err
}

// TestRaftStorage drives the log and Raft's own MemoryStorage side by side, with reopens between, and compares every
// answer.
func TestRaftStorage(t *testing.T) {
	syncer := startSyncer(t)
	rapid.Check(t, func(t *rapid.T) {
		mem := raft.NewMemoryStorage()
		fs := vfs.NewMem()
		opts := Options{FS: fs, Syncer: syncer, SegmentBytes: MinSegmentBytes, CacheBytes: rapid.SampledFrom([]int64{1, 1 << 20}).Draw(t, "cache")}
		l, err := Open("/plog", 1, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		committed, wait := uint64(0), make(chan error, 100)
		pending := 0
		drain := func() {
			for ; pending > 0; pending-- {
				if err := <-wait; err != nil {
					t.Fatal(err)
				}
			}
		}
		bounds := func() (first, last, term uint64) {
			first, _ = mem.FirstIndex()
			last, _ = mem.LastIndex()
			term, _ = mem.Term(last)
			return first, last, term
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				first, last, _ := bounds()
				at := rapid.Uint64Range(max(first, committed+1), last+1).Draw(t, "at")
				term, err := mem.Term(at - 1)
				if err != nil {
					t.Skip("no term")
				}
				if at <= last {
					was, _ := mem.Term(last)
					term = was + 1
				}
				var es []Entry
				for i := range uint64(rapid.IntRange(1, 6).Draw(t, "n")) {
					term += rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "term")
					es = append(es, Entry{Index: at + i, Term: max(term, 1), Type: uint8(i % 3),
						Data: data(at+i, term, rapid.SampledFrom([]int{0, 0, 10, 100, 900}).Draw(t, "size"))})
				}
				if rapid.Bool().Draw(t, "empty") {
					es[0].Data = nil
				}
				if err := mem.Append(toRaft(es)); err != nil {
					t.Fatal(err)
				}
				pending++
				if err := l.Append(es, nil, func(err error) { wait <- err }); err != nil {
					t.Fatal(err)
				}
				if pending == cap(wait) {
					drain()
				}
			},
			"commit": func(t *rapid.T) {
				_, last, _ := bounds()
				committed = max(committed, rapid.Uint64Range(min(committed, last), last).Draw(t, "commit"))
				l.SetCommitted(committed)
			},
			"compact": func(t *rapid.T) {
				first, _, _ := bounds()
				if committed < first {
					t.Skip("nothing committed")
				}
				drain()
				index := rapid.Uint64Range(first, committed).Draw(t, "index")
				if err := mem.Compact(index); err != nil {
					t.Fatal(err)
				}
				if err := l.Release(index); err != nil {
					t.Fatal(err)
				}
			},
			"snapshot": func(t *rapid.T) {
				_, last, term := bounds()
				drain()
				index := last + rapid.Uint64Range(1, 50).Draw(t, "ahead")
				term++
				if err := mem.ApplySnapshot(&pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &index, Term: &term}}); err != nil {
					t.Fatal(err)
				}
				if err := l.Reset(index, term); err != nil {
					t.Fatal(err)
				}
				committed = max(committed, index)
			},
			"reopen": func(t *rapid.T) {
				drain()
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = Open("/plog", 1, opts); err != nil {
					t.Fatal(err)
				}
				l.SetCommitted(committed)
			},
			"term": func(t *rapid.T) {
				first, last, _ := bounds()
				i := rapid.Uint64Range(max(first, 3)-3, last+2).Draw(t, "i")
				want, wantErr := mem.Term(i)
				got, err := l.Term(i)
				if got != want || !errors.Is(storageError(err), wantErr) {
					t.Fatalf("term of %d: %d %v, want %d %v", i, got, err, want, wantErr)
				}
			},
			"entries": func(t *rapid.T) {
				first, last, _ := bounds()
				lo := rapid.Uint64Range(max(first, 2)-1, last+1).Draw(t, "lo")
				hi := rapid.Uint64Range(lo, last+1).Draw(t, "hi")
				limit := rapid.SampledFrom([]uint64{0, 50, 1000, 3000, math.MaxUint64}).Draw(t, "max")
				if lo >= hi {
					t.Skip("empty range")
				}
				want, wantErr := mem.Entries(lo, hi, limit)
				got, err := l.Entries(lo, hi, limit)
				if !errors.Is(storageError(err), wantErr) || len(got) != len(want) {
					t.Fatalf("entries [%d,%d) in %d: %d %v, want %d %v", lo, hi, limit, len(got), err, len(want), wantErr)
				}
				for i, r := range toRaft(got) {
					if !proto.Equal(r, want[i]) {
						t.Fatalf("entry %d: %v, want %v", i, r, want[i])
					}
				}
			},
			"": func(t *rapid.T) {
				first, last, _ := bounds()
				if l.FirstIndex() != first || l.LastIndex() != last {
					t.Fatalf("log is [%d,%d], want [%d,%d]", l.FirstIndex(), l.LastIndex(), first, last)
				}
			},
		})
		drain()
	})
}

// FuzzReader opens a log whose active segment is arbitrary, with valid beginnings as seeds: never a panic, never a
// wrong record, and what opens can be read or says where it is damaged.
func FuzzReader(f *testing.F) {
	fs := vfs.NewMem()
	l, s := builtLog(f, fs, nil)
	im := takeImage(f, fs)
	name := segmentName(l.done.seq)
	closeLog(f, l)
	base := im[name]
	f.Add(uint16(0), []byte{})
	f.Add(uint16(segmentHeaderLen), []byte{1})
	f.Add(uint16(segmentHeaderLen+frameHeaderLen), base[segmentHeaderLen:700])
	f.Add(uint16(900), base[segmentHeaderLen:])
	f.Add(uint16(530), bytesOf(0xff, 60))
	f.Fuzz(func(t *testing.T, at uint16, patch []byte) {
		b := append([]byte(nil), base...)
		copy(b[min(int(at), len(b)):], patch)
		l, err := Open("/plog", 7, Options{FS: im.with(name, b).restore(t), SegmentBytes: MinSegmentBytes, CacheBytes: 1})
		if err != nil {
			if !errors.As(err, new(*ErrCorrupt)) {
				t.Fatal(err)
			}
			return
		}
		defer func() { _ = l.Close() }()
		n := l.LastIndex() - l.FirstIndex() + 1
		if n > uint64(len(s.entries)) {
			t.Fatalf("%d entries out of nothing", n-uint64(len(s.entries)))
		}
		got, err := l.Entries(l.FirstIndex(), l.LastIndex()+1, math.MaxUint64)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, s.entries[:n])
	})
}

func bytesOf(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// FuzzManifest decodes arbitrary bytes; what decodes is consistent and survives a round trip.
func FuzzManifest(f *testing.F) {
	m := &manifest{generation: 3, partition: 1, base: 4, activeSeq: 3, activeFirst: 11, activeSize: 4096, activeSynced: 600,
		segments: []sealedInfo{{seq: 1, first: 1, last: 5, end: 600, size: 4096}, {seq: 2, first: 6, last: 10, end: 700, size: 4096}}}
	f.Add(m.encode(), false)
	f.Add((&manifest{activeSeq: 1, activeFirst: 1, activeSize: 4096}).encode(), false)
	f.Add(m.encode()[:100], true)
	f.Add([]byte("x"), true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) >= manifestTrailer {
			sealManifest(b)
		}
		m, err := decodeManifest(b)
		if err != nil {
			if !errors.As(err, new(*ErrCorrupt)) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeManifest(m.encode())
		if err != nil || again.generation != m.generation || len(again.segments) != len(m.segments) {
			t.Fatalf("round trip: %v", err)
		}
	})
}
