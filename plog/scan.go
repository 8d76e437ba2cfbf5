package plog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// scanBuffer is the size of the reads of a scanner.
const scanBuffer = 1 << 20

// scanner walks the frames of a segment from its start, verifying everything: header, place, chain, order,
// records and digest. It stops at the first byte that does not continue the log.
type scanner struct {
	f    vfs.File
	key  uint64
	seq  uint64
	off  int64 // of the next frame
	end  int64 // bytes beyond are not read
	link uint32
	next uint64 // decree expected next
	term uint64 // of the decree before

	buf    []byte
	bufOff int64
	bufLen int

	badOff    int64 // of the record that made the last frame a KindRecord
	badDecree uint64
}

// frame is a verified frame; bytes is valid until the next call of scan.
type frame struct {
	frameHeader
	off   int64  // of its header
	bytes []byte // the records
}

func newScanner(f vfs.File, partition uint32, seq uint64, end int64, first, prevTerm uint64) *scanner {
	key := segmentKey(partition, seq)
	return &scanner{f: f, key: key, seq: seq, off: segmentHeaderLen, end: end, link: firstLink(key), next: first, term: prevTerm}
}

// scan verifies the next frame. kind is empty and err nil when fr is good; a kind says why the log does not go
// on at s.off; err is a failed read.
func (s *scanner) scan(fr *frame) (kind Kind, err error) {
	b, err := s.window(s.off, frameHeaderLen+hardStateLen)
	if err != nil {
		return "", err
	}
	if !parseFrameHeader(b, s.key, s.off, &fr.frameHeader) {
		return KindFrame, nil
	}
	if fr.link != s.link {
		return KindLink, nil
	}
	n := fr.size() + int(fr.body)
	if s.off+int64(n) > s.end {
		return KindSegmentTruncated, nil
	}
	if b, err = s.window(s.off, n); err != nil {
		return "", err
	}
	if len(b) < n {
		return KindSegmentTruncated, nil
	}
	if fr.count > 0 && (fr.first != s.next || fr.term < s.term) {
		return KindOrder, nil
	}
	fr.off, fr.bytes = s.off, b[fr.size():n]
	if s.badOff, s.badDecree = fr.verify(s.key); s.badOff != 0 {
		return KindRecord, nil
	}
	s.off += int64(n)
	s.link = fr.chain
	if fr.count > 0 {
		s.next, s.term = fr.first+uint64(fr.count), fr.term
	}
	return "", nil
}

// verify checks every record of the frame and their digest. It returns the place of what is wrong, 0 when nothing is: the record, or
// the frame when each record is right but they are not those that were written together.
func (fr *frame) verify(key uint64) (badOff int64, badDecree uint64) {
	var digest uint32
	b, off, index := fr.bytes, fr.off+int64(fr.size()), fr.first
	for range fr.count {
		if len(b) < recordHeaderLen {
			return off, index
		}
		n := uint64(binary.LittleEndian.Uint32(b[4:])) + recordHeaderLen
		if n > uint64(len(b)) {
			return off, index
		}
		crc := binary.LittleEndian.Uint32(b)
		if crc32.Update(recordSeed(key, off, index, fr.term), castagnoli, b[4:n]) != crc {
			return off, index
		}
		digest = fold(digest, crc)
		b, off, index = b[n:], off+int64(n), index+1
	}
	if len(b) != 0 || digest != fr.digest {
		return fr.off, fr.first
	}
	return 0, 0
}

// place is where the damage is that the last scan found, as a cursor would find it.
func (s *scanner) place(kind Kind) (off int64, decree uint64) {
	if kind == KindRecord {
		return s.badOff, s.badDecree
	}
	return s.off, s.next
}

// points appends the index points of the frame to dst.
func (fr *frame) points(dst []point) []point {
	b, off := fr.bytes, fr.off+int64(fr.size())
	for i := range fr.count {
		if len(dst) == 0 || off-int64(dst[len(dst)-1].off) >= pointSpacing {
			dst = append(dst, point{index: fr.first + uint64(i), term: fr.term, off: uint32(off), left: fr.count - i})
		}
		n := int64(binary.LittleEndian.Uint32(b[4:])) + recordHeaderLen
		b, off = b[n:], off+n
	}
	return dst
}

// window returns the bytes at off: n of them, or fewer at the end of what may be read.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	if off >= s.bufOff && off+int64(n) <= s.bufOff+int64(s.bufLen) {
		at := int(off - s.bufOff)
		return s.buf[at : at+n], nil
	}
	want := int(max(0, min(s.end-off, int64(max(n, scanBuffer)))))
	if want > len(s.buf) {
		s.buf = make([]byte, want)
	}
	m, err := s.f.ReadAt(s.buf[:want], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read plog segment %d at %d: %w", s.seq, off, err)
	}
	s.bufOff, s.bufLen = off, m
	return s.buf[:min(n, m)], nil
}

// forget drops the bytes read ahead, so that the next scan sees what the file holds now.
func (s *scanner) forget() { s.bufLen = 0 }
