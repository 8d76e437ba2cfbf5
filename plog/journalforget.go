package plog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"replicanode/internal/dirsync"
)

const (
	forgottenName    = "FORGOTTEN"
	forgottenTmpName = "FORGOTTEN.tmp"
	forgottenMagic   = 0x31464a474f4c5052 // "RPLOGJF1"
	forgottenFixed   = 32
	// maxForgotten bounds the logs remembered. The oldest ones go first.
	maxForgotten = 4096
)

// forgotten are the ids of logs that a journal has given batches up of, the oldest first. One of them that still needs the journal lacks these, and is
// refused.
type forgotten []uint64

func (f forgotten) has(id uint64) bool { return slices.Contains(f, id) }

func (f forgotten) encode(journal uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, forgottenFixed, forgottenFixed+8*len(f))
	le.PutUint64(b[4:], forgottenMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint64(b[16:], journal)
	le.PutUint64(b[24:], uint64(len(f)))
	for _, id := range f {
		b = le.AppendUint64(b, id)
	}
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// decodeForgotten decodes b. ok: it is whole.
func decodeForgotten(b []byte) (f forgotten, journal uint64, version uint32, ok bool) {
	le := binary.LittleEndian
	if len(b) < forgottenFixed || le.Uint64(b[4:]) != forgottenMagic || crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
		return nil, 0, 0, false
	}
	if version = le.Uint32(b[12:]); version != formatVersion {
		return nil, 0, version, true
	}
	n := le.Uint64(b[24:])
	if n > maxForgotten || len(b) != forgottenFixed+8*int(n) {
		return nil, 0, version, false
	}
	for at := forgottenFixed; at < len(b); at += 8 {
		f = append(f, le.Uint64(b[at:]))
	}
	return f, le.Uint64(b[16:]), version, true
}

// loadForgotten reads what the journal with an id has given up. A file that is not whole is an *ErrCorrupt, and is removed if loss is accepted, as
// is one that cannot be read.
func (j *Journal) loadForgotten(journal uint64) error {
	name := j.path(forgottenName)
	if err := j.opts.FS.Remove(j.path(forgottenTmpName)); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove leftover: %w", err)
	}
	b, err := j.readForgotten(name)
	if isNotExist(err) {
		return nil
	}
	if err != nil && !j.opts.AcceptLoss {
		return err
	}
	list, of, version, ok := decodeForgotten(b) // nothing of what cannot be read
	switch {
	case !ok && j.opts.AcceptLoss:
		err = errors.Join(j.opts.FS.Remove(name), dirsync.Sync(j.opts.FS, j.dir))
		if err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		fallthrough
	case !ok:
		return &ErrCorrupt{Kind: KindJournal, File: name}
	case version != formatVersion:
		return unknownVersion(version, name, formatVersion, formatVersion)
	case of == journal:
		j.forgotten = list
	}
	return nil
}

func (j *Journal) readForgotten(name string) ([]byte, error) {
	f, err := j.opts.FS.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, forgottenFixed+8*maxForgotten+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// forget notes, durably, that batches of logs are given up. It comes before the journal is emptied.
func (j *Journal) forget(logs []lostLog) error {
	if len(logs) == 0 || j.id == 0 {
		return nil
	}
	list, partitions := slices.Clone(j.forgotten), make([]uint32, 0, len(logs))
	for _, l := range logs {
		list, partitions = append(list, l.id), append(partitions, l.partition)
	}
	list = list[max(0, len(list)-maxForgotten):]
	tmp := j.path(forgottenTmpName)
	if err := writeFileSynced(j.opts.FS, tmp, list.encode(j.id)); err != nil {
		_ = j.opts.FS.Remove(tmp)
		return fmt.Errorf("note what the journal gives up: %w", err)
	}
	if err := j.opts.FS.Rename(tmp, j.path(forgottenName)); err != nil {
		return fmt.Errorf("note what the journal gives up: %w", err)
	}
	if err := dirsync.Sync(j.opts.FS, j.dir); err != nil {
		return err
	}
	j.forgotten = list
	j.opts.Logger.Warn("the journal gives up what it has of logs that are gone", "dir", j.dir, "partitions", partitions)
	return nil
}
