package plog

import (
	"fmt"
	"math"
	"slices"
)

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
