package plog

import (
	"context"
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
	ctx    context.Context
	fs     vfs.FS
	dir    string
	m      *manifest // nil: there is none
	report Report
	visit  func(Item) error
	at     place // of the last item visited: a segment that is read again shows nothing twice
}

func inspect(ctx context.Context, fsys vfs.FS, dir string, visit func(Item) error) (Report, error) {
	over, damaged, err := laidOver(ctx, fsys, dir)
	if err != nil {
		return Report{}, fmt.Errorf("inspect plog %s: %w", dir, err)
	}
	in := &inspection{ctx: ctx, fs: over, dir: dir, visit: visit}
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
	if err == nil {
		err = ctx.Err()
	}
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

// noteDamage reports a damaged place once, unless nothing can be read any more.
func (in *inspection) noteDamage(seq uint64, off int64, decree uint64, kind Kind) error {
	if err := in.ctx.Err(); err != nil {
		return err
	}
	e := &ErrCorrupt{Partition: in.report.Partition, Segment: seq, Offset: off, Decree: decree, Kind: kind}
	if slices.ContainsFunc(in.report.Damage, func(d *ErrCorrupt) bool { return *d == *e }) {
		return nil
	}
	in.report.Damage = append(in.report.Damage, e)
	return in.visit(Item{Segment: seq, Offset: off, Damage: e})
}

// show visits what was not shown yet.
func (in *inspection) show(it Item) error {
	if it.Segment < in.at.segment || it.Segment == in.at.segment && it.Offset <= in.at.offset {
		return nil
	}
	in.at = place{it.Segment, it.Offset}
	return in.visit(it)
}
