package redis

import (
	"context"
	"sync"
	"time"
)

// Counting keys means reading them, so INFO is content with an older count, and with a short try at a newer one.
const (
	keyCountAge  = 10 * time.Second
	keyCountTime = 100 * time.Millisecond
)

// keyCount remembers how many keys there are.
type keyCount struct {
	mu sync.Mutex // held while somebody counts
	n  uint64
	at time.Time // of the last attempt
}

// count is the number of keys, some seconds old at most unless counting takes longer than INFO should; 0 when it is not known.
func (k *keyCount) count(s *Server) uint64 {
	if !s.ready.Load() {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.at.IsZero() && time.Since(k.at) < keyCountAge {
		return k.n
	}
	ctx, cancel := context.WithTimeout(s.ctx, keyCountTime)
	defer cancel()
	n, err := s.countKeys(ctx)
	if err == nil {
		k.n = n
	}
	k.at = time.Now()
	return k.n
}

// counted remembers a count that somebody has waited for.
func (k *keyCount) counted(n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n, k.at = n, time.Now()
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
