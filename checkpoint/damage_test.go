package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func readFile(t tb, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return b
}

func writeFile(t tb, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(bytes.Clone(b))
	must(t, err)
	must(t, f.Close())
}

// small makes a checkpoint of several small chunks.
func small(t *testing.T) (*Store, *Manifest, vfs.FS) {
	t.Helper()
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 30, 300)
	noise := make([]byte, 5000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	src.write(t, map[string]*cell{"a": {value: noise}, "zz": {value: []byte("z")}})
	fs := vfs.NewMem()
	store := NewStore(fs, "ckpt")
	m, err := store.Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10})
	must(t, err)
	if len(m.Chunks) < 2 {
		t.Fatalf("%d chunks", len(m.Chunks))
	}
	return store, m, fs
}

// TestEveryBit flips each bit of each file: the manifest is refused, a chunk is named.
func TestEveryBit(t *testing.T) {
	store, m, fs := small(t)
	dir := store.dir(1, m.Decree)
	path := fs.PathJoin(dir, manifestName)
	good := readFile(t, fs, path)
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := parseManifest(path, bad); err == nil {
			t.Fatalf("manifest with bit %d flipped was accepted", bit)
		}
	}
	for cut := range len(good) {
		if _, err := parseManifest(path, good[:cut]); err == nil {
			t.Fatalf("manifest cut at %d was accepted", cut)
		}
	}
	for _, chunk := range m.Chunks {
		path := fs.PathJoin(dir, chunk.Name)
		good := readFile(t, fs, path)
		step := 1
		if os.Getenv("REPLICANODE_STRESS") != "1" {
			step = 41
		}
		for bit := 0; bit < len(good)*8; bit += step {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			writeFile(t, fs, path, bad)
			v, err := store.Verify(ctx, nil, 1, m.Decree)
			must(t, err)
			var corrupt *CorruptError
			if len(v.Bad) != 1 || !errors.As(v.Bad[0], &corrupt) || corrupt.Path != path {
				t.Fatalf("bit %d of %s: %v", bit, chunk.Name, v.Bad)
			}
		}
		writeFile(t, fs, path, good)
	}
}

// TestDamagedChunk cuts, lengthens, swaps and removes chunks.
func TestDamagedChunk(t *testing.T) {
	store, m, fs := small(t)
	dir := store.dir(1, m.Decree)
	path := fs.PathJoin(dir, m.Chunks[0].Name)
	good := readFile(t, fs, path)
	other := readFile(t, fs, fs.PathJoin(dir, m.Chunks[1].Name))
	damages := map[string][]byte{"longer": append(bytes.Clone(good), 0), "empty": {}, "another": other}
	for cut := 0; cut < len(good); cut += 11 {
		damages[fmt.Sprintf("cut at %d", cut)] = good[:cut]
	}
	refused := func(name string) {
		t.Helper()
		v, err := store.Verify(ctx, nil, 1, m.Decree)
		must(t, err)
		if len(v.Bad) != 1 || !strings.Contains(v.Err().Error(), path) {
			t.Fatalf("%s: verify found %v", name, v.Bad)
		}
		target := filepath.Join(t.TempDir(), "0001")
		if _, err := store.Restore(ctx, nil, 1, m.Decree, target, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("%s: restore: %v", name, err)
		}
		if names, _ := os.ReadDir(filepath.Dir(target)); len(names) != 0 {
			t.Fatalf("%s: restore left %v", name, names)
		}
	}
	for name, bad := range damages {
		writeFile(t, fs, path, bad)
		refused(name)
	}
	// Same size: only reading finds it, and only at the end of the chunk.
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	writeFile(t, fs, path, bad)
	refused("last bit")
	must(t, fs.Remove(path))
	refused("missing")
	infos, err := store.List(ctx, 1)
	must(t, err)
	if len(infos) != 1 || infos[0].Err == nil || infos[0].Problem == "" {
		t.Fatalf("list %+v", infos)
	}
	if _, err := store.Latest(ctx, 1); !errors.Is(err, ErrNotFound) {
		t.Fatalf("latest: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	store, m, _ := small(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	if _, err := store.Restore(ctx, nil, 1, m.Decree, dir, RestoreOptions{}); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("non-empty folder: %v", err)
	}
	if _, err := store.Restore(ctx, nil, 1, m.Decree+1, t.TempDir(), RestoreOptions{}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("missing checkpoint: %v", err)
	}
	failed := errors.New("finish failed")
	target := filepath.Join(t.TempDir(), "r")
	_, err := store.Restore(ctx, nil, 1, m.Decree, target, RestoreOptions{Finish: func(string, RestoredState) error { return failed }})
	if !errors.Is(err, failed) {
		t.Fatalf("finish: %v", err)
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("half a restore appeared: %v", err)
	}
	// A leftover of an interrupted restore is in nobody's way.
	must(t, os.MkdirAll(target+".restoring/db", 0o755))
	must(t, os.WriteFile(target+".restoring/db/MANIFEST", []byte("junk"), 0o600))
	_, err = store.Restore(ctx, nil, 1, m.Decree, target, RestoreOptions{})
	must(t, err)
}

func FuzzManifest(f *testing.F) {
	m := &Manifest{FormatVersion: 1, Decree: 9, Entries: 1, RawBytes: 3, Bytes: 80,
		Chunks: []Chunk{{Name: "000001.chunk", Size: 80, CRC32C: "00000000", Entries: 1, RawBytes: 3, First: []byte("a"), Last: []byte("a")}}}
	b, err := m.encode()
	must(f, err)
	f.Add(b)
	f.Add([]byte(manifestPrefix))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest("m", b)
		if err != nil {
			return
		}
		if _, err := m.encode(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzChunk feeds damaged chunks whose checksums are right, so that the deeper
// checks are reached: the input is the raw bytes of one block.
func FuzzChunk(f *testing.F) {
	id := chunkID{1, 9, 1}
	var good []byte
	for _, e := range []Entry{{Kind: Put, Key: []byte("a"), Value: []byte("v"), Version: 3}, {Kind: Delete, Key: []byte("b"), Version: 9}} {
		good = appendEntryHead(good, &e)
		good = append(good, e.Value...)
	}
	f.Add(good, true)
	f.Add([]byte{1, 0, 1, 0, 1, 'k', 0xff, 0xff, 0xff, 0xff, 3}, false)
	f.Fuzz(func(t *testing.T, raw []byte, framed bool) {
		dec, err := newDecoder()
		must(t, err)
		defer dec.Close()
		file := raw
		if framed {
			enc, err := newEncoder()
			must(t, err)
			defer enc.Close()
			var out bytes.Buffer
			w := newChunkWriter(enc, nil)
			must(t, w.reset(&out, id))
			w.raw = append(w.raw, raw[:min(len(raw), blockRawBytes)]...)
			must(t, w.finish())
			file = out.Bytes()
		}
		r, err := openChunk(bytes.NewReader(file), "c", id, dec)
		if err != nil {
			return
		}
		var e Entry
		for {
			if err := r.next(&e); err != nil {
				return
			}
			if len(e.Key) > len(raw) || len(e.Value) > len(raw) {
				t.Fatalf("entry of %d and %d bytes from %d", len(e.Key), len(e.Value), len(raw))
			}
		}
	})
}
