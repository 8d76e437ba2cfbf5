package plog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// visited is a segment as the manifest knows it.
type visited struct {
	seq         uint64
	first, last uint64 // live decrees
	end, synced int64
	sealed      bool
	uncut       bool // the manifest announces a cut that had not happened
	missing     bool
	link        uint32
	report      SegmentReport
	records     uint64
	lastLive    uint64
	hs          *HardState
}

// segment visits one segment, going on behind damaged places.
func (in *inspection) segment(v *visited) error {
	for {
		v.report = SegmentReport{Segment: v.seq, File: segmentName(v.seq), Sealed: v.sealed, First: v.first, Last: v.first - 1}
		v.records, v.lastLive, v.hs = 0, 0, nil
		err := in.content(v)
		switch {
		case errors.Is(err, errSealed):
			continue
		case errors.Is(err, errGone):
			in.report.Gone = append(in.report.Gone, v.report)
			in.report.Last = max(in.report.Last, v.lastLive)
			return nil
		case err != nil || v.missing:
			return err
		}
		in.report.Segments = append(in.report.Segments, v.report)
		in.report.Bytes += v.report.Bytes
		in.report.Records += v.records
		in.report.Last = max(in.report.Last, v.lastLive)
		if v.hs != nil {
			in.report.HardState = *v.hs
		}
		return nil
	}
}

func (in *inspection) content(v *visited) error {
	f, err := in.fs.Open(in.fs.PathJoin(in.dir, segmentName(v.seq)))
	if v.missing = isNotExist(err); v.missing {
		return in.damage(v, 0, v.first, KindSegmentMissing)
	}
	if err != nil {
		return fmt.Errorf("open segment %d: %w", v.seq, err)
	}
	defer f.Close()
	if err := in.header(f, v); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat segment %d: %w", v.seq, err)
	}
	if st.Size() < v.end {
		if err := in.damage(v, st.Size(), v.first, KindSegmentTruncated); err != nil {
			return err
		}
	}
	return in.frames(newScanner(f, in.report.Partition, v.seq, v.end, v.first, 0), v)
}

// header checks the header of a segment, which must be there once anything in it was synced.
func (in *inspection) header(f vfs.File, v *visited) error {
	synced := v.synced > 0
	for {
		h, ok, err := readSegmentHeader(f)
		if err != nil {
			return err
		}
		if h.seq == v.seq && h.partition == in.report.Partition && ok {
			if in.stale(h) {
				return in.noteDamage(v.seq, 0, v.first, KindManifestStale)
			}
			return nil
		}
		if synced {
			return in.damage(v, 0, v.first, KindSegmentHeader)
		}
		// A live log may have written the header and a proof meanwhile: it is judged again.
		proof, err := newScanner(f, in.report.Partition, v.seq, v.end, v.first, 0).proof(0)
		if synced = proof > 0; err != nil || !synced {
			return err
		}
	}
}

// replaced checks a segment whose decrees were all replaced: the manifest names it still, so that it must be there.
func (in *inspection) replaced(v *visited) error {
	st, err := in.fs.Stat(in.fs.PathJoin(in.dir, segmentName(v.seq)))
	switch {
	case isNotExist(err):
		err = in.damage(v, 0, v.first, KindSegmentMissing)
	case err != nil:
		return fmt.Errorf("stat segment %d: %w", v.seq, err)
	case st.Size() < v.end:
		err = in.damage(v, st.Size(), v.first, KindSegmentTruncated)
	}
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// frame visits the live records of a frame.
func (in *inspection) frame(v *visited, fr *frame) error {
	if fr.flags&flagHardState != 0 {
		hs := fr.hs
		v.hs = &hs
		if err := in.show(Item{Segment: v.seq, Offset: fr.off, HardState: &hs}); err != nil {
			return err
		}
	}
	b, off := fr.bytes, fr.off+int64(fr.size())
	for i := range uint64(fr.count) {
		n := int64(binary.LittleEndian.Uint32(b[4:])) + recordHeaderLen
		e := Entry{Index: fr.first + i, Term: fr.term, Type: b[8], Data: b[recordHeaderLen:n:n]}
		if e.Index <= v.last {
			v.report.Last = e.Index
			if e.Index >= in.report.First {
				v.lastLive = e.Index
				v.records++
				if err := in.show(Item{Segment: v.seq, Offset: off, Entry: &e}); err != nil {
					return err
				}
			}
		}
		b, off = b[n:], off+n
	}
	return nil
}
