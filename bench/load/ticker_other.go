//go:build !linux

package load

import (
	"os"
	"sync"
	"time"
)

// ticker wakes one goroutine at a fixed pace.
type ticker struct {
	t    *time.Ticker
	done chan struct{}
	once sync.Once
}

func newTicker(d time.Duration) (*ticker, error) {
	return &ticker{t: time.NewTicker(d), done: make(chan struct{})}, nil
}

// wait returns at the next tick, or at once when ticks were missed. It fails once the ticker is closed.
func (t *ticker) wait() error {
	select {
	case <-t.t.C:
		return nil
	case <-t.done:
		return os.ErrClosed
	}
}

// close ends a wait in progress. It may be called from any goroutine.
func (t *ticker) close() {
	t.once.Do(func() {
		t.t.Stop()
		close(t.done)
	})
}
