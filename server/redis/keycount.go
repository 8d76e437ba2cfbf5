package redis

import (
	"context"
	"sync"
	"time"
)

// Counting keys means reading them. So INFO tries for keyCountTime at most, and spends a keyCountShare of the time on it at most: a count
// that took longer is good for longer.
const (
	keyCountTime  = 100 * time.Millisecond
	keyCountShare = 100
)

// keyCount remembers how many keys there are.
type keyCount struct {
	mu   sync.Mutex // held while somebody counts
	n    uint64
	next time.Time // when it is worth counting again
}

// count is the number of keys, seconds old at most unless counting takes longer than INFO should; 0 when it is not known.
func (k *keyCount) count(s *Server) uint64 {
	if !s.ready.Load() {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	began := time.Now()
	if began.Before(k.next) {
		return k.n
	}
	ctx, cancel := context.WithTimeout(s.ctx, keyCountTime)
	defer cancel()
	n, err := s.countKeys(ctx)
	if err == nil {
		k.n = n
	}
	k.next = time.Now().Add(keyCountShare * time.Since(began))
	return k.n
}

// counted remembers a count that took somebody else so long.
func (k *keyCount) counted(n uint64, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n, k.next = n, time.Now().Add(keyCountShare*min(took, keyCountTime))
}

// countKeys reads the keys of all partitions.
func (s *Server) countKeys(ctx context.Context) (uint64, error) {
	var sum uint64
	for p := range s.opts.Store.Partitions() {
		n, err := s.opts.Store.Partition(p).Count(ctx)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
