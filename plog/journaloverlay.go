package plog

import (
	"context"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// journalTries bounds how often the journal of a live node is read.
const journalTries = 8

// overlay shows the segments of a log as they are once the journal was brought back, until ctx ends.
type overlay struct {
	vfs.FS
	ctx     context.Context
	patches map[string][]blockEntry // by the segment's name
	bytes   int64
}

// laidOver returns fs with what the journal of the data folder holds of the log in dir laid over its segments, and what is wrong with that
// journal. Nothing is laid over a log that needs no journal.
func laidOver(ctx context.Context, fsys vfs.FS, dir string) (*overlay, *ErrCorrupt, error) {
	o := &overlay{FS: fsys, ctx: ctx}
	m, err := readManifest(fsys, dir)
	if err != nil || m.journal == 0 {
		return o, nil, nil // without a manifest nobody knows which bytes are this log's
	}
	data := fsys.PathDir(fsys.PathDir(fsys.PathDir(dir)))
	name := fsys.PathJoin(data, JournalDir, journalName)
	damage, err := o.load(name, m)
	if isNotExist(err) {
		return o, &ErrCorrupt{Kind: KindJournalMissing, Partition: m.partition, Offset: manifestJournal}, nil
	}
	return o, damage, err
}

// load reads the journal. That of a live node moves on meanwhile: only what looks damaged at the same place again is.
func (o *overlay) load(name string, m *manifest) (damage *ErrCorrupt, err error) {
	for range journalTries {
		last := damage
		if damage, err = o.loadOnce(name, m); err != nil || damage == nil || last != nil && *last == *damage {
			return damage, err
		}
	}
	return nil, nil
}

func (o *overlay) loadOnce(name string, m *manifest) (*ErrCorrupt, error) {
	jf, err := openJournalFile(o, name, false)
	defer jf.close()
	if e, ok := err.(*ErrCorrupt); ok {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	gone, err := o.givenUp(name, jf.id, m.id)
	if err != nil {
		return nil, err
	}
	if jf.damage == nil && (jf.id != m.journal || gone) {
		return &ErrCorrupt{Kind: KindJournalMissing, Partition: m.partition, Offset: manifestJournal}, nil
	}
	if e := jf.outdated(m); jf.damage == nil && e != nil {
		return e, nil
	}
	o.patches, o.bytes = map[string][]blockEntry{}, 0
	for i := range jf.areas {
		if _, err := jf.scan(i, func(e blockEntry) error {
			if err := o.ctx.Err(); err != nil {
				return err
			}
			if e.log == m.id && e.partition == m.partition {
				e.bytes = append([]byte(nil), e.bytes...)
				name := segmentName(e.seq)
				o.patches[name] = append(o.patches[name], e)
				o.bytes += int64(len(e.bytes))
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return jf.damage, nil
}

// givenUp says whether the journal has given up batches of a log.
func (o *overlay) givenUp(name string, journal, log uint64) (bool, error) {
	j := &Journal{opts: JournalOptions{FS: o.FS}, dir: o.PathDir(name)}
	b, err := j.readForgotten(j.path(forgottenName))
	if isNotExist(err) {
		return false, nil
	}
	list, of, _, _ := decodeForgotten(b)
	return of == journal && list.has(log), err
}

// Open implements vfs.FS.
func (o *overlay) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := o.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &overlaidFile{File: f, ctx: o.ctx, patches: o.patches[o.PathBase(name)]}, nil
}

type overlaidFile struct {
	vfs.File
	ctx     context.Context
	patches []blockEntry
}

// ReadAt implements vfs.File.
func (f *overlaidFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(b, off)
	for i := range f.patches {
		p := &f.patches[i]
		from, to := max(p.off, off), min(p.off+int64(len(p.bytes)), off+int64(n))
		if from < to {
			copy(b[from-off:to-off], p.bytes[from-p.off:to-p.off])
		}
	}
	return n, err
}
