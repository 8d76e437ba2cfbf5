package plog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Report is what Verify found in a log's folder: the log as its manifest described it when Verify began, less the segments that a
// running node gave up before they were read (Gone, up to where they were). What was appended since may be missing.
type Report struct {
	Partition  uint32          `json:"partition"`
	Generation uint64          `json:"generation"` // of the manifest
	First      uint64          `json:"first"`      // oldest decree held
	Last       uint64          `json:"last"`       // newest readable decree
	HardState  HardState       `json:"hard_state"`
	Segments   []SegmentReport `json:"segments"`
	Records    uint64          `json:"records"` // readable, live
	Bytes      int64           `json:"bytes"`   // checked
	Journal    int64           `json:"journal"` // bytes of the log in the journal, which were read from there
	Damage     []*ErrCorrupt   `json:"damage"`  // empty: the log is whole
	Gone       []SegmentReport `json:"gone,omitempty"`
	Torn       *Torn           `json:"torn,omitempty"`
}

// SegmentReport is what Verify found in one segment.
type SegmentReport struct {
	Segment uint64 `json:"segment"`
	File    string `json:"file"`
	Sealed  bool   `json:"sealed"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`  // live; First-1 when there is none
	Bytes   int64  `json:"bytes"` // up to the end of the last whole frame
	Frames  uint64 `json:"frames"`
}

// Torn is the place where the log ends in the middle of a batch that was not synced. A running node is writing it; of a dead one it
// was never acknowledged, and Open cuts it.
type Torn struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
	Decree  uint64 `json:"decree"` // the first one that is not there
}

// Item is one thing Dump met. Exactly one of Entry, HardState and Damage is set.
type Item struct {
	Segment   uint64
	Offset    int64 // of the record, or of the frame that carries the hard state
	Entry     *Entry
	HardState *HardState
	Damage    *ErrCorrupt
}

const (
	// inspectTries bounds how often a batch that is not whole is looked at again, because a live log may be writing it.
	inspectTries = 8

	// inspectChase bounds how often an inspection follows the end of a live log that moves on before its eyes.
	inspectChase = 64
)

// Verify checks every byte of the log in dir, of a live node or a dead one, and changes nothing. What the journal holds of the log, looked for in
// ../../../journal, is read from there. Damage is in the
// report; the error is for what could not be read at all, or that of ctx, which ends the work at the next read. On a live log the newest batches may be missing.
func Verify(ctx context.Context, dir string) (Report, error) {
	return inspect(ctx, vfs.Default, dir, func(Item) error { return nil })
}

// Dump calls visit for every live decree in [from,to] (to 0: all), for the hard states between them, and for every
// damaged place, in the order of the log. It changes nothing and works like Verify. Entry.Data is valid until visit
// returns. An error of visit ends Dump.
func Dump(ctx context.Context, dir string, from, to uint64, visit func(Item) error) error {
	if to == 0 {
		to = math.MaxUint64
	}
	_, err := inspect(ctx, vfs.Default, dir, func(it Item) error {
		if it.Entry != nil && (it.Entry.Index < from || it.Entry.Index > to) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return visit(it)
	})
	return err
}

// inspection is one walk through a folder.
type inspection struct {
	fs     vfs.FS
	dir    string
	m      *manifest // nil: there is none
	report Report
	visit  func(Item) error
	at     place // of the last item visited: a segment that is read again shows nothing twice
}

var (
	// errGone says that a live log gave up the segment under inspection.
	errGone = errors.New("plog: segment was given up during inspection")
	// errSealed says that the active segment was sealed during inspection.
	errSealed = errors.New("plog: segment was sealed during inspection")
)

func inspect(ctx context.Context, fsys vfs.FS, dir string, visit func(Item) error) (Report, error) {
	over, damaged, err := laidOver(ctx, fsys, dir)
	if err != nil {
		return Report{}, fmt.Errorf("inspect plog %s: %w", dir, err)
	}
	in := &inspection{fs: over, dir: dir, visit: visit}
	m, err := readManifest(fsys, dir)
	var damage *ErrCorrupt
	switch {
	case errors.As(err, &damage):
		err = in.withoutManifest(damage)
	case isNotExist(err):
		err = in.withoutManifest(&ErrCorrupt{Kind: KindManifestMissing})
	case err == nil:
		in.m = m
		err = in.walk()
	}
	if err == nil && damaged != nil {
		in.report.Damage = append(in.report.Damage, damaged)
		err = visit(Item{Damage: damaged})
	}
	in.report.Journal = over.bytes
	if err != nil {
		return in.report, fmt.Errorf("inspect plog %s: %w", dir, err)
	}
	return in.report, nil
}

// walk visits the log the manifest describes.
func (in *inspection) walk() error {
	m := in.m
	in.report.Partition, in.report.Generation = m.partition, m.generation
	in.report.First, in.report.Last, in.report.HardState = m.base+1, m.base, m.hs
	if err := in.unnamed(); err != nil {
		return err
	}
	cut := uint64(math.MaxUint64)
	if m.cut != 0 && in.begun() {
		cut = m.cut
	}
	for i := range m.segments {
		s := &m.segments[i]
		v := visited{seq: s.seq, first: s.first, last: min(s.last, cut-1), end: s.end, synced: s.end, sealed: true, link: s.link}
		visit := in.segment
		if s.first >= cut {
			visit = in.replaced
		}
		if err := visit(&v); err != nil {
			return err
		}
	}
	v := visited{seq: m.activeSeq, first: m.activeFirst, last: math.MaxUint64, end: m.activeSize, synced: m.activeSynced}
	if cut == math.MaxUint64 && m.cut != 0 {
		v.uncut = true
		if n := len(m.segments); n > 0 {
			v.first = m.segments[n-1].last + 1
		}
	}
	return in.segment(&v)
}

// unnamed looks at the segments behind the active one, which the manifest does not name: one that was written shows that
// the manifest is older than it.
func (in *inspection) unnamed() error {
	names, err := in.fs.List(in.dir)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		seq, ok := parseSegmentName(name)
		if !ok || seq <= in.m.activeSeq {
			continue
		}
		f, err := in.fs.Open(in.fs.PathJoin(in.dir, name))
		if isNotExist(err) {
			continue // a spare that was renamed or removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("open segment %s: %w", name, err)
		}
		h, ok, err := readSegmentHeader(f)
		_ = f.Close()
		if err != nil {
			return err
		}
		if ok && h.seq == seq && h.partition == in.m.partition && in.stale(h) {
			if err := in.noteDamage(seq, 0, h.first, KindManifestStale); err != nil {
				return err
			}
		}
	}
	return nil
}

// stale reports whether the manifest is older than a segment: a live log writes the manifest first.
func (in *inspection) stale(h segmentHeader) bool {
	if in.m == nil || h.generation <= in.m.generation {
		return false
	}
	m, err := readManifest(in.fs, in.dir)
	return err != nil || h.generation > m.generation
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

// begun reports whether the active segment holds a whole frame.
func (in *inspection) begun() bool {
	f, err := in.fs.Open(in.fs.PathJoin(in.dir, segmentName(in.m.activeSeq)))
	if err != nil {
		return false
	}
	defer f.Close()
	var fr frame
	kind, err := newScanner(f, in.m.partition, in.m.activeSeq, in.m.activeSize, in.m.activeFirst, 0).scan(&fr)
	return kind == "" && err == nil
}

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

// changed compares the segment with the manifest of this moment: errGone when that does not name it any more, or errSealed, with v as
// the new manifest has it. Sequence numbers are never used again, so a segment that is still named was so all the time.
func (in *inspection) changed(v *visited) error {
	if v.uncut && in.begun() {
		return errGone
	}
	m, err := readManifest(in.fs, in.dir)
	if in.m == nil || err != nil || m.generation == in.m.generation || m.activeSeq == v.seq {
		return nil
	}
	for i := range m.segments {
		s := &m.segments[i]
		switch {
		case s.seq != v.seq:
		case v.sealed:
			return nil
		default:
			v.sealed, v.last, v.end, v.synced, v.link = true, s.last, s.end, s.end, s.link
			return errSealed
		}
	}
	return errGone
}

// damage reports a damaged place of the segment, unless the segment is another one by now.
func (in *inspection) damage(v *visited, off int64, decree uint64, kind Kind) error {
	if err := in.changed(v); err != nil {
		return err
	}
	return in.noteDamage(v.seq, off, decree, kind)
}

func (in *inspection) noteDamage(seq uint64, off int64, decree uint64, kind Kind) error {
	e := &ErrCorrupt{Partition: in.report.Partition, Segment: seq, Offset: off, Decree: decree, Kind: kind}
	if slices.ContainsFunc(in.report.Damage, func(d *ErrCorrupt) bool { return *d == *e }) {
		return nil
	}
	in.report.Damage = append(in.report.Damage, e)
	return in.visit(Item{Segment: seq, Offset: off, Damage: e})
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

// frames visits the frames of a segment.
func (in *inspection) frames(sc *scanner, v *visited) error {
	var fr frame
	whole, again, chase, unfinished := true, int64(0), 0, 0
	for (!v.sealed || sc.off < v.end) && chase <= inspectChase {
		kind, err := sc.scan(&fr)
		if err != nil {
			return err
		}
		if kind == "" {
			v.report.Frames++
			v.report.Bytes = sc.off
			if fr.off == again {
				chase++
			}
			if err := in.frame(v, &fr); err != nil {
				return err
			}
			continue
		}
		at, decree := sc.off, sc.next
		synced := max(v.synced, 0)
		if at >= synced {
			if proof, err := sc.proof(at); err != nil {
				return err
			} else if proof == 0 {
				// Bytes that were never a frame header are the end. A part of a batch may be on its way.
				if kind == KindFrame || kind == KindLink {
					return nil
				}
				if unfinished++; unfinished < inspectTries {
					sc.forget()
					continue
				}
				return in.torn(v, at, decree)
			}
			// The proof may be younger than the bytes judged by it: a live log wrote both meanwhile. What was synced
			// before the proof was written can be read after it.
			if again != at {
				again = at
				sc.forget()
				continue
			}
		}
		whole = false
		if err := in.damage(v, at, decree, kind); err != nil {
			return err
		}
		if more, err := sc.resume(at); err != nil || !more {
			return err
		}
	}
	if whole && v.sealed && in.m != nil && sc.link != v.link {
		return in.damage(v, sc.off, sc.next, KindLink)
	}
	return nil
}

// torn notes that the log ends in the middle of a batch.
func (in *inspection) torn(v *visited, off int64, decree uint64) error {
	if err := in.changed(v); err != nil {
		return err
	}
	in.report.Torn = &Torn{Segment: v.seq, Offset: off, Decree: decree}
	return nil
}

// show visits what was not shown yet.
func (in *inspection) show(it Item) error {
	if it.Segment < in.at.segment || it.Segment == in.at.segment && it.Offset <= in.at.offset {
		return nil
	}
	in.at = place{it.Segment, it.Offset}
	return in.visit(it)
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

// withoutManifest visits the segments that name themselves, in their order.
func (in *inspection) withoutManifest(damage *ErrCorrupt) error {
	names, err := in.fs.List(in.dir)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	slices.Sort(names)
	in.m = nil
	var found []visited
	for _, name := range names {
		seq, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		f, err := in.fs.Open(in.fs.PathJoin(in.dir, name))
		if err != nil {
			return fmt.Errorf("open segment %s: %w", name, err)
		}
		h, ok, err := readSegmentHeader(f)
		if st, serr := f.Stat(); err == nil && serr == nil && ok && h.seq == seq {
			in.report.Partition = h.partition
			found = append(found, visited{seq: seq, first: h.first, last: math.MaxUint64, end: st.Size()})
		}
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	if len(found) == 0 && damage.Kind == KindManifestMissing {
		return fmt.Errorf("no log here: %w", damage)
	}
	damage.Partition = in.report.Partition
	in.report.Damage = append(in.report.Damage, damage)
	if err := in.visit(Item{Damage: damage}); err != nil {
		return err
	}
	for i := range found {
		if in.report.First == 0 {
			in.report.First = found[i].first
		}
		if err := in.segment(&found[i]); err != nil {
			return err
		}
	}
	return nil
}
