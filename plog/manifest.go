package plog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/internal/dirsync"
)

const (
	manifestName    = "MANIFEST"
	manifestTmpName = "MANIFEST.tmp"
	manifestMagic   = 0x314e4d474f4c5052 // "RPLOGMN1"
	manifestVersion = 3
	manifestFirst   = 1 // the oldest version that is read
	manifestFixed   = 152
	manifestNoReach = 136 // the same in version 2, without the reach of the journal
	manifestNoIDs   = 120 // the same in version 1, without the ids of log and journal either
	manifestSegment = 64
	manifestTrailer = 4
	manifestJournal = 120 // offset of the journal's id
	manifestReach   = 128 // offset of how far it went
)

// sealedInfo is what the manifest knows of a sealed segment.
type sealedInfo struct {
	seq                 uint64
	first, last         uint64 // live decrees; last may be less than what the file holds (a cut suffix)
	firstTerm, lastTerm uint64
	end                 int64 // bytes written
	size                int64 // of the file
	link                uint32
}

// manifest is the durable description of a log.
type manifest struct {
	generation     uint64
	partition      uint32
	base, baseTerm uint64 // the decree before FirstIndex
	hs             HardState
	activeSeq      uint64
	activeFirst    uint64
	activeSize     int64
	activeSynced   int64  // the active segment was synced up to here at least
	cut            uint64 // not 0: once the active segment holds a batch, sealed decrees from here on are dead
	cutTerm        uint64 // term of decree cut-1
	id             uint64 // of the log: random, for its whole life
	journal        uint64 // not 0: the journal that may hold what the active segment does not
	reach          Reach  // how far it went at least
	segments       []sealedInfo
}

func (m *manifest) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, manifestFixed, manifestFixed+len(m.segments)*manifestSegment+manifestTrailer)
	le.PutUint64(b, manifestMagic)
	le.PutUint32(b[8:], manifestVersion)
	le.PutUint32(b[12:], m.partition)
	le.PutUint64(b[16:], m.generation)
	le.PutUint64(b[24:], m.base)
	le.PutUint64(b[32:], m.baseTerm)
	putHardState(b[40:], m.hs)
	le.PutUint64(b[64:], m.activeSeq)
	le.PutUint64(b[72:], m.activeFirst)
	le.PutUint64(b[80:], uint64(m.activeSize))
	le.PutUint64(b[88:], uint64(m.activeSynced))
	le.PutUint64(b[96:], m.cut)
	le.PutUint64(b[104:], m.cutTerm)
	le.PutUint64(b[112:], m.id)
	le.PutUint64(b[120:], m.journal)
	le.PutUint64(b[128:], m.reach.Generation)
	le.PutUint64(b[136:], uint64(m.reach.End))
	le.PutUint64(b[144:], uint64(len(m.segments)))
	for i := range m.segments {
		s := &m.segments[i]
		b = le.AppendUint64(b, s.seq)
		b = le.AppendUint64(b, s.first)
		b = le.AppendUint64(b, s.last)
		b = le.AppendUint64(b, s.firstTerm)
		b = le.AppendUint64(b, s.lastTerm)
		b = le.AppendUint64(b, uint64(s.end))
		b = le.AppendUint64(b, uint64(s.size))
		b = le.AppendUint32(b, s.link)
		b = le.AppendUint32(b, 0)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeManifest checks and decodes b. Damage is an *ErrCorrupt, a newer format ErrVersion. Version 2 does not say how far the journal went. Version 1
// is that of before the journal, without the ids of log and journal; for a time it had them, too, which its length tells.
func decodeManifest(b []byte) (*manifest, error) {
	le := binary.LittleEndian
	bad := func(off int) error { return &ErrCorrupt{Kind: KindManifest, Offset: int64(off)} }
	if len(b) < manifestNoIDs+manifestTrailer {
		return nil, bad(len(b))
	}
	body := b[:len(b)-manifestTrailer]
	if crc32.Checksum(body, castagnoli) != le.Uint32(b[len(body):]) || le.Uint64(b) != manifestMagic {
		return nil, bad(0)
	}
	v, fixed := le.Uint32(b[8:]), manifestFixed
	if v < manifestFirst || v > manifestVersion {
		return nil, unknownVersion(v, manifestName, manifestFirst, manifestVersion)
	}
	switch {
	case v == manifestFirst && (len(body)-manifestNoIDs)%manifestSegment == 0:
		fixed = manifestNoIDs
	case v < manifestVersion:
		fixed = manifestNoReach
	}
	if len(body) < fixed {
		return nil, bad(len(b))
	}
	n := le.Uint64(b[fixed-8:])
	if n > maxSegments || len(body) != fixed+int(n)*manifestSegment {
		return nil, bad(fixed - 8)
	}
	m := &manifest{
		partition: le.Uint32(b[12:]), generation: le.Uint64(b[16:]),
		base: le.Uint64(b[24:]), baseTerm: le.Uint64(b[32:]), hs: getHardState(b[40:]),
		activeSeq: le.Uint64(b[64:]), activeFirst: le.Uint64(b[72:]),
		activeSize: int64(le.Uint64(b[80:])), activeSynced: int64(le.Uint64(b[88:])), cut: le.Uint64(b[96:]), cutTerm: le.Uint64(b[104:]),
		segments: make([]sealedInfo, n),
	}
	if fixed >= manifestNoReach {
		m.id, m.journal = le.Uint64(b[112:]), le.Uint64(b[120:])
	}
	if fixed == manifestFixed {
		m.reach = Reach{Generation: le.Uint64(b[128:]), End: int64(le.Uint64(b[136:]))}
	}
	for i := range m.segments {
		p := b[fixed+i*manifestSegment:]
		m.segments[i] = sealedInfo{
			seq: le.Uint64(p), first: le.Uint64(p[8:]), last: le.Uint64(p[16:]),
			firstTerm: le.Uint64(p[24:]), lastTerm: le.Uint64(p[32:]),
			end: int64(le.Uint64(p[40:])), size: int64(le.Uint64(p[48:])), link: le.Uint32(p[56:]),
		}
	}
	if off := m.inconsistent(fixed); off != 0 {
		e := &ErrCorrupt{Kind: KindManifest, Offset: int64(off), Partition: m.partition}
		return nil, e
	}
	return m, nil
}

// inconsistent returns the offset of the first field that contradicts another one, 0 when there is none. The segments stand from fixed on.
func (m *manifest) inconsistent(fixed int) int {
	next, seq := m.base+1, uint64(0)
	for i := range m.segments {
		s, at := &m.segments[i], fixed+i*manifestSegment
		contiguous := s.first == next || (i == 0 && s.first <= next && s.last >= m.base)
		if s.seq <= seq || !contiguous || s.last+1 < s.first || s.last > 1<<62 ||
			s.end < segmentHeaderLen || s.end > s.size || s.size > maxFileBytes {
			return at
		}
		next, seq = s.last+1, s.seq
	}
	switch {
	case m.activeSeq <= seq:
		return 64
	case m.cut == 0 && m.activeFirst > next, m.cut == 0 && len(m.segments) > 0 && m.activeFirst != next,
		m.cut != 0 && (m.cut > next || m.activeFirst != m.cut), m.activeFirst == 0:
		return 72
	case m.activeSize < segmentHeaderLen || m.activeSize > maxFileBytes || m.activeSynced < 0 || m.activeSynced > m.activeSize:
		return 80
	case m.base > 1<<62:
		return 24
	}
	return 0
}

// readManifest loads the manifest of dir. A missing one is fs.ErrNotExist.
func readManifest(fsys vfs.FS, dir string) (*manifest, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, manifestName))
	if err != nil {
		return nil, fmt.Errorf("open plog manifest: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat plog manifest: %w", err)
	}
	if st.Size() > manifestFixed+maxSegments*manifestSegment+manifestTrailer {
		return nil, &ErrCorrupt{Kind: KindManifest, Offset: st.Size()}
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(b)) {
		return nil, fmt.Errorf("read plog manifest: %w", err)
	}
	return decodeManifest(b)
}

// writeManifest replaces the manifest of dir atomically and durably. torn reports that it is unknown which of
// the two manifests a crash would leave: the log must not go on.
func writeManifest(fsys vfs.FS, dir string, m *manifest) (torn bool, err error) {
	tmp := fsys.PathJoin(dir, manifestTmpName)
	if err := writeFileSynced(fsys, tmp, m.encode()); err != nil {
		_ = fsys.Remove(tmp)
		return false, fmt.Errorf("write plog manifest: %w", err)
	}
	if err := fsys.Rename(tmp, fsys.PathJoin(dir, manifestName)); err != nil {
		return !isDiskFull(err), fmt.Errorf("rename plog manifest: %w", err)
	}
	if err := dirsync.Sync(fsys, dir); err != nil {
		return true, err
	}
	return false, nil
}

func writeFileSynced(fsys vfs.FS, name string, b []byte) error {
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
