package plog

import "errors"

const (
	// inspectTries bounds how often a batch that is not whole is looked at again, because a live log may be writing it.
	inspectTries = 8

	// inspectChase bounds how often an inspection follows the end of a live log that moves on before its eyes.
	inspectChase = 64
)

var (
	// errGone says that a live log gave up the segment under inspection.
	errGone = errors.New("plog: segment was given up during inspection")
	// errSealed says that the active segment was sealed during inspection.
	errSealed = errors.New("plog: segment was sealed during inspection")
)

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

// stale reports whether the manifest is older than a segment: a live log writes the manifest first.
func (in *inspection) stale(h segmentHeader) bool {
	if in.m == nil || h.generation <= in.m.generation {
		return false
	}
	m, err := readManifest(in.fs, in.dir)
	return err != nil || h.generation > m.generation
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
