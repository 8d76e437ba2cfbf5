package replica

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"replicanode/plog"
)

// storage is Raft's view of a private log: the log itself, and a cache of the entries which are appended and not yet
// applied, so that applying reads nothing back. Only the host's goroutine uses it once the partition is open.
type storage struct {
	log  *plog.Log
	conf *raftpb.ConfState
	// applied is the decree that recovery starts after; what is applied is committed, whatever the hard state says.
	applied uint64

	// cached entries have consecutive indexes.
	cached      []*raftpb.Entry
	cachedBytes int

	// err is the first error that Raft was given by the log.
	err error
}

// maxCachedBytes bounds the cache; beyond it the oldest entries are read back from the log.
const maxCachedBytes = 32 << 20

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs := s.log.HardState()
	lastTerm, err := s.Term(s.log.LastIndex())
	if err != nil {
		return nil, nil, err
	}
	if lastTerm > hs.Term {
		// Only a log that was cut behind a restored state has no hard state of its last term.
		hs.Term, hs.Vote = lastTerm, 0
	}
	hs.Commit = max(hs.Commit, s.applied)
	return &raftpb.HardState{Term: &hs.Term, Vote: &hs.Vote, Commit: &hs.Commit}, s.conf, nil
}

// append caches entries which were handed to the log, replacing those with the same or greater indexes.
func (s *storage) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	if len(s.cached) > 0 {
		first, next := s.cached[0].GetIndex(), entries[0].GetIndex()
		keep := 0
		if next > first {
			keep = int(min(next-first, uint64(len(s.cached))))
		}
		if next > first+uint64(keep) {
			keep = 0
		}
		for _, e := range s.cached[keep:] {
			s.cachedBytes -= len(e.GetData())
		}
		clear(s.cached[keep:])
		s.cached = s.cached[:keep]
	}
	for _, e := range entries {
		s.cachedBytes += len(e.GetData())
	}
	s.cached = append(s.cached, entries...)
	if over := s.cachedBytes - maxCachedBytes; over > 0 {
		n := 0
		for ; over > 0; n++ {
			over -= len(s.cached[n].GetData())
		}
		s.evict(n)
	}
}

// forget drops the cached entries up to an index.
func (s *storage) forget(index uint64) {
	if len(s.cached) == 0 || index < s.cached[0].GetIndex() {
		return
	}
	s.evict(int(min(index-s.cached[0].GetIndex()+1, uint64(len(s.cached)))))
}

func (s *storage) evict(n int) {
	for _, e := range s.cached[:n] {
		s.cachedBytes -= len(e.GetData())
	}
	rest := copy(s.cached, s.cached[n:])
	clear(s.cached[rest:])
	s.cached = s.cached[:rest]
}

// Entries implements raft.Storage.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if len(s.cached) > 0 && lo >= s.cached[0].GetIndex() {
		at := lo - s.cached[0].GetIndex()
		if n := hi - lo; at+n <= uint64(len(s.cached)) {
			return slices.Clone(limitEntries(s.cached[at:at+n], maxSize)), nil
		}
	}
	entries, err := s.log.Entries(lo, hi, maxSize)
	if err != nil {
		return nil, s.failed(fmt.Errorf("read log entries [%d,%d): %w", lo, hi, err))
	}
	out := make([]*raftpb.Entry, len(entries))
	for i := range entries {
		out[i] = toRaft(&entries[i])
	}
	return out, nil
}

// limitEntries is the longest prefix within maxSize bytes, but at least one entry.
func limitEntries(entries []*raftpb.Entry, maxSize uint64) []*raftpb.Entry {
	size := uint64(0)
	for i, e := range entries {
		size += uint64(len(e.GetData())) + 16
		if size > maxSize && i > 0 {
			return entries[:i:i]
		}
	}
	return entries
}

// Term implements raft.Storage.
func (s *storage) Term(index uint64) (uint64, error) {
	if len(s.cached) > 0 && index >= s.cached[0].GetIndex() {
		if at := index - s.cached[0].GetIndex(); at < uint64(len(s.cached)) {
			return s.cached[at].GetTerm(), nil
		}
	}
	term, err := s.log.Term(index)
	if err != nil {
		return 0, s.failed(fmt.Errorf("read term of log entry %d: %w", index, err))
	}
	return term, nil
}

// failed turns the log's errors into Raft's, and remembers the others: Raft panics on them.
func (s *storage) failed(err error) error {
	switch {
	case errors.Is(err, plog.ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, plog.ErrUnavailable):
		return raft.ErrUnavailable
	}
	if s.err == nil {
		s.err = err
	}
	return err
}

// reason is why Raft gave up with err: when the log has failed it, the log's error, which err repeats as a text.
func (s *storage) reason(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) { return s.log.LastIndex(), nil }

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return s.log.FirstIndex(), nil }

// Snapshot implements raft.Storage. There are none: the log keeps what every voter still needs.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

func toRaft(e *plog.Entry) *raftpb.Entry {
	kind := raftpb.EntryType(e.Type)
	return &raftpb.Entry{Index: &e.Index, Term: &e.Term, Type: &kind, Data: e.Data}
}

func fromRaft(dst []plog.Entry, entries []*raftpb.Entry) []plog.Entry {
	for _, e := range entries {
		dst = append(dst, plog.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), Data: e.GetData()})
	}
	return dst
}
