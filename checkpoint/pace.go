package checkpoint

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

// PaceOptions say how much of the processors copies take while clients are served.
type PaceOptions struct {
	// Busy tells whether clients are being served. It must not block. nil: never, and
	// copies are as fast as they can be.
	Busy func() bool
	// Share is the part of all processors' time that all copies together take while
	// Busy, above 0 and at most 1; default 0.15. A slice of a copy holds a processor
	// for a millisecond that a client's request may wait for: the share is about how
	// often that happens.
	Share float64
}

// EnsureDefaults fills in the defaults.
func (o *PaceOptions) EnsureDefaults() {
	if o.Share == 0 {
		o.Share = 0.15
	}
}

// Validate says what is wrong with the options.
func (o *PaceOptions) Validate() error {
	if !(o.Share > 0 && o.Share <= 1) {
		return fmt.Errorf("share of %v of the processors is not above 0 and at most 1", o.Share)
	}
	return nil
}

const (
	// busyFor is how long an answer of PaceOptions.Busy counts.
	busyFor = 100 * time.Millisecond
	// leastPause is what is worth to sleep for; less is added to the next pause.
	leastPause = 200 * time.Microsecond
	// mostPause bounds one pause, so that copies speed up soon after clients have gone.
	mostPause = 50 * time.Millisecond
)

// pace spreads the slices of all copies over time.
type pace struct {
	o     PaceOptions
	share float64 // of one processor

	mu    sync.Mutex
	asked time.Time
	busy  bool
	free  time.Time // when what was used up to now is paid for
}

func newPace(o PaceOptions) *pace {
	return &pace{o: o, share: o.Share * float64(runtime.GOMAXPROCS(0))}
}

// used charges a slice that ended now, and returns how long its copy should pause.
func (p *pace) used(now time.Time, took time.Duration) time.Duration {
	if p.o.Busy == nil {
		return 0
	}
	p.mu.Lock()
	ask := now.Sub(p.asked) >= busyFor
	if ask {
		p.asked = now
	}
	p.mu.Unlock()
	busy := false
	if ask {
		busy = p.o.Busy()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ask {
		p.busy = busy
	}
	if !p.busy {
		p.free = now
		return 0
	}
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(took) / p.share))
	pause := p.free.Sub(now) - took
	if pause < leastPause {
		return 0
	}
	return min(pause, mostPause)
}
