package plog

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// journalTries bounds how often the journal of a live node is read.
const journalTries = 8

// overlay shows the segments of a log as they are once the journal was brought back.
type overlay struct {
	vfs.FS
	patches map[string][]blockEntry // by the segment's name
	bytes   int64
}

// laidOver returns fs with what the journal of the data folder holds of the log in dir laid over its segments, and what is wrong with that
// journal. Nothing is laid over a log that needs no journal.
func laidOver(fsys vfs.FS, dir string) (*overlay, *ErrCorrupt, error) {
	o := &overlay{FS: fsys}
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
	jf, err := openJournalFile(o.FS, name)
	defer jf.close()
	if e, ok := err.(*ErrCorrupt); ok {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	if jf.damage == nil && jf.id != m.journal {
		return &ErrCorrupt{Kind: KindJournalMissing, Partition: m.partition, Offset: manifestJournal}, nil
	}
	o.patches, o.bytes = map[string][]blockEntry{}, 0
	for i := range jf.areas {
		if _, err := jf.scan(i, func(e blockEntry) error {
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

// Open implements vfs.FS.
func (o *overlay) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := o.FS.Open(name, opts...)
	if patches := o.patches[o.PathBase(name)]; err == nil && len(patches) > 0 {
		return &overlaidFile{File: f, patches: patches}, nil
	}
	return f, err
}

type overlaidFile struct {
	vfs.File
	patches []blockEntry
}

// ReadAt implements vfs.File.
func (f *overlaidFile) ReadAt(b []byte, off int64) (int, error) {
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
