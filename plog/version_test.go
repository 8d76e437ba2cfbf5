package plog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// asVersion is a manifest as version 1 wrote it, with or without the ids, or version 2.
func asVersion(v uint32, b []byte, ids bool) []byte {
	b = slices.Clone(b[:len(b)-manifestTrailer])
	binary.LittleEndian.PutUint32(b[8:], v)
	b = slices.Delete(b, manifestReach, manifestReach+manifestFixed-manifestNoReach)
	if !ids {
		b = slices.Delete(b, manifestNoIDs-8, manifestNoReach-8)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// TestManifestFormerVersions: a log of a former version is read, and written as one of this version.
func TestManifestFormerVersions(t *testing.T) {
	for i, version := range []uint32{1, 1, 2} {
		ids := i > 0
		for _, batches := range []int{1, 9} {
			fs, want := vfs.NewMem(), state{}
			o := Options{Syncer: startSyncer(t), SegmentBytes: 8 << 10}
			l := open(t, fs, o)
			for i := range batches {
				es := batch(uint64(i+1), 1, 1, 3000)
				mustAppend(t, l, es, &HardState{Term: 1, Vote: 2})
				want.append(es, &HardState{Term: 1, Vote: 2})
			}
			closeLog(t, l)
			name := l.path(manifestName)
			writeFile(t, fs, name, asVersion(version, readFile(t, fs, name), ids))
			if r, err := inspect(t.Context(), fs, l.dir, func(Item) error { return nil }); err != nil || len(r.Damage) > 0 || r.Last != want.last() {
				t.Errorf("version %d, ids %v, inspected: %v, %+v", version, ids, err, r)
			}
			for range 2 {
				l = open(t, fs, o)
				if err := want.diff(l); err != nil {
					t.Errorf("ids %v: %v", ids, err)
				}
				es := batch(want.last()+1, 1, 1, 100)
				mustAppend(t, l, es, nil)
				want.append(es, nil)
				closeLog(t, l)
			}
			m, err := readManifest(fs, l.dir)
			if v := binary.LittleEndian.Uint32(readFile(t, fs, name)[8:]); err != nil || v != manifestVersion || m.id == 0 {
				t.Errorf("ids %v: version %d, %v", ids, v, err)
			}
		}
	}
}

// TestManifestOfALaterVersion is refused, with both versions and what to do.
func TestManifestOfALaterVersion(t *testing.T) {
	b := (&manifest{activeSeq: 1, activeFirst: 1, activeSize: 4096}).encode()
	b = b[:len(b)-manifestTrailer]
	b[8] = 7
	_, err := decodeManifest(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 7 in MANIFEST: this program reads versions 1 to 3; run the one that wrote it") {
		t.Error(err)
	}
}
