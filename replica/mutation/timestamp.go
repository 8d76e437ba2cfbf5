package mutation

import (
	"sync/atomic"
	"time"
)

// Timestamp is a hybrid logical clock reading: physical microseconds since 1970 in the upper 52 bits, a logical
// counter in the lower 12. Greater is later. The zero Timestamp is before every real one.
type Timestamp uint64

const logicalBits = 12

// TimestampOf is the smallest timestamp of the given time. Times before 1970 give 0.
func TimestampOf(t time.Time) Timestamp {
	us := t.UnixMicro()
	if us < 0 {
		return 0
	}
	return Timestamp(us) << logicalBits
}

// TimestampOfMillis is the smallest timestamp of a time given in milliseconds since 1970; it saturates.
func TimestampOfMillis(ms uint64) Timestamp {
	if ms > MaxMillis {
		return ^Timestamp(0)
	}
	return Timestamp(ms*1000) << logicalBits
}

// MaxMillis is the last millisecond since 1970 that a Timestamp can represent (in the year 2112).
const MaxMillis = (1<<(64-logicalBits) - 1) / 1000

// Time is the physical part.
func (t Timestamp) Time() time.Time { return time.UnixMicro(int64(t >> logicalBits)) }

// Millis is the physical part in milliseconds since 1970, rounded down.
func (t Timestamp) Millis() uint64 { return uint64(t>>logicalBits) / 1000 }

// Clock is a hybrid logical clock. It is safe for concurrent use; its zero value is ready and reads time.Now.
type Clock struct {
	// Physical replaces time.Now; for tests.
	Physical func() time.Time

	last atomic.Uint64
}

// Next returns a timestamp greater than every one that Next returned and Observe was given.
func (c *Clock) Next() Timestamp {
	now := uint64(TimestampOf(c.physical()))
	for {
		last := c.last.Load()
		next := max(now, last+1)
		if c.last.CompareAndSwap(last, next) {
			return Timestamp(next)
		}
	}
}

// Observe moves the clock past ts: the next timestamp is greater.
func (c *Clock) Observe(ts Timestamp) {
	for {
		last := c.last.Load()
		if uint64(ts) <= last || c.last.CompareAndSwap(last, uint64(ts)) {
			return
		}
	}
}

// Last is the greatest timestamp that was given out or observed.
func (c *Clock) Last() Timestamp { return Timestamp(c.last.Load()) }

func (c *Clock) physical() time.Time {
	if c.Physical != nil {
		return c.Physical()
	}
	return time.Now()
}
