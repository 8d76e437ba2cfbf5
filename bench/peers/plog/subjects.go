package main

import (
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/tidwall/wal"
	etcdwal "go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"replicanode/bench/plogbench"
)

// fillBatch is how many records are written at a time when no append is waited for.
const fillBatch = 8192

// filler gathers records into large batches for logs that sync each one.
type filler struct {
	append  func([][]byte) error
	pending [][]byte
}

func (f *filler) Fill(records [][]byte) error {
	f.pending = append(f.pending, records...)
	if len(f.pending) < fillBatch {
		return nil
	}
	return f.Flush()
}

func (f *filler) Flush() error {
	if len(f.pending) == 0 {
		return nil
	}
	err := f.append(f.pending)
	f.pending = f.pending[:0]
	return err
}

func raftWAL() plogbench.Factory {
	return plogbench.Factory{Name: "raft-wal", Open: func(dir string) (plogbench.Subject, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		w, err := raftwal.Open(dir)
		if err != nil {
			return nil, err
		}
		s := &hashicorpLog{w: w}
		s.filler.append = s.Append
		return s, nil
	}}
}

type hashicorpLog struct {
	filler
	mu   sync.Mutex
	w    *raftwal.WAL
	last uint64
	logs []*raft.Log
}

func (s *hashicorpLog) Append(records [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.logs) < len(records) {
		s.logs = append(s.logs, &raft.Log{Term: 1})
	}
	for i, b := range records {
		s.last++
		s.logs[i].Index, s.logs[i].Data = s.last, b
	}
	return s.w.StoreLogs(s.logs[:len(records)])
}

func (s *hashicorpLog) Trim() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, err := s.w.FirstIndex()
	if err != nil || s.last <= first {
		return err
	}
	return s.w.DeleteRange(first, s.last-1)
}

func (s *hashicorpLog) Read() (uint64, error) {
	first, err := s.w.FirstIndex()
	if err != nil {
		return 0, err
	}
	var l raft.Log
	for i := first; i <= s.last; i++ {
		if err := s.w.GetLog(i, &l); err != nil {
			return 0, err
		}
	}
	return s.last + 1 - first, nil
}

func (s *hashicorpLog) Close() error { return s.w.Close() }

func tidwall() plogbench.Factory {
	return plogbench.Factory{Name: "tidwall/wal", Open: func(dir string) (plogbench.Subject, error) {
		w, err := wal.Open(dir, &wal.Options{SegmentSize: 16 << 20, NoCopy: true})
		if err != nil {
			return nil, err
		}
		s := &tidwallLog{w: w}
		s.filler.append = s.Append
		return s, nil
	}}
}

type tidwallLog struct {
	filler
	mu    sync.Mutex
	w     *wal.Log
	last  uint64
	batch wal.Batch
}

func (s *tidwallLog) Append(records [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch.Clear()
	for _, b := range records {
		s.last++
		s.batch.Write(s.last, b)
	}
	return s.w.WriteBatch(&s.batch)
}

func (s *tidwallLog) Trim() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.TruncateFront(s.last)
}

func (s *tidwallLog) Read() (uint64, error) {
	first, err := s.w.FirstIndex()
	if err != nil {
		return 0, err
	}
	for i := first; i <= s.last; i++ {
		if _, err := s.w.Read(i); err != nil {
			return 0, err
		}
	}
	return s.last + 1 - first, nil
}

func (s *tidwallLog) Close() error { return s.w.Close() }

func etcdWAL() plogbench.Factory {
	return plogbench.Factory{Name: "etcd wal", Open: func(dir string) (plogbench.Subject, error) {
		w, err := etcdwal.Create(zap.NewNop(), dir, nil)
		if err != nil {
			return nil, err
		}
		s := &etcdLog{w: w, dir: dir}
		s.filler.append = s.Append
		return s, nil
	}}
}

type etcdLog struct {
	filler
	mu      sync.Mutex
	w       *etcdwal.WAL
	dir     string
	last    uint64
	entries []*raftpb.Entry
}

func (s *etcdLog) Append(records [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.entries) < len(records) {
		s.entries = append(s.entries, &raftpb.Entry{Index: new(uint64), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum()})
	}
	for i, b := range records {
		s.last++
		*s.entries[i].Index, s.entries[i].Data = s.last, b
	}
	return s.w.Save(&raftpb.HardState{}, s.entries[:len(records)])
}

// Trim only unlocks old segments: deleting them is left to the caller of this library.
func (s *etcdLog) Trim() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.ReleaseLockTo(s.last)
}

func (s *etcdLog) Read() (uint64, error) {
	w, err := etcdwal.OpenForRead(zap.NewNop(), s.dir, &walpb.Snapshot{})
	if err != nil {
		return 0, err
	}
	defer w.Close() // always an error for a log opened for reading only
	_, _, entries, err := w.ReadAll()
	if err != nil {
		return 0, err
	}
	if uint64(len(entries)) != s.last {
		return 0, fmt.Errorf("read %d of %d entries", len(entries), s.last)
	}
	return s.last, nil
}

func (s *etcdLog) Close() error { return s.w.Close() }
