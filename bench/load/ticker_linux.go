package load

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ticker wakes one goroutine at a fixed pace. It is a kernel timer read through the runtime's poller: the runtime's own timers
// are rounded up to a millisecond when the process is otherwise idle, which a load generator must not add to its latencies.
type ticker struct {
	f   *os.File
	buf [8]byte
}

func newTicker(d time.Duration) (*ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create timer: %w", err)
	}
	ts := unix.NsecToTimespec(d.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: ts, Value: ts}, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set timer: %w", err), unix.Close(fd))
	}
	return &ticker{f: os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns at the next tick, or at once when ticks were missed. It fails once the ticker is closed.
func (t *ticker) wait() error {
	_, err := t.f.Read(t.buf[:])
	return err
}

// close ends a wait in progress. It may be called from any goroutine.
func (t *ticker) close() { _ = t.f.Close() }
