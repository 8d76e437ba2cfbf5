package checkpoint

import (
	"context"
	"runtime"
	"time"

	"replicanode/internal/handover"
)

// Turn is the running task's side of the long pool; *threadpool.Turn satisfies
// it. A nil Turn means that nobody else needs the processor.
type Turn interface {
	// Yield charges ioBytes and may give the slot away; it returns an error when
	// the task is cancelled.
	Yield(ioBytes int) error
	// Await gives the slot away until ch is closed or receives.
	Await(ch <-chan struct{}) error
	// AwaitEnd is Await for what nobody can cancel: it returns when ch is ready and never
	// before, and gives the slot away until then even when the task is cancelled.
	AwaitEnd(ch <-chan struct{}) error
}

// onOwn makes f on a goroutine of its own, with a turn of its own: however long it hangs
// in a read of the database, it holds no slot. It has always returned when onOwn returns.
func onOwn(turn Turn, f func(turn Turn) error) error {
	if turn == nil {
		return f(nil)
	}
	return handover.OnOwn(turn, func(own *handover.OwnTurn) error { return f(own) })
}

// slicer cuts a long run of small steps into slices.
type slicer struct {
	ctx   context.Context
	turn  Turn
	slice time.Duration
	began time.Time
	bytes int
	steps int
}

func newSlicer(ctx context.Context, turn Turn, slice time.Duration) *slicer {
	return &slicer{ctx: ctx, turn: turn, slice: slice, began: time.Now()}
}

// stepsPerClock is how many steps of about a microsecond share one look at the clock.
const stepsPerClock = 16

// step is called after each small piece of work.
func (s *slicer) step() error {
	if s.steps++; s.steps < stepsPerClock {
		return nil
	}
	return s.piece(0)
}

// piece is called after a piece of work worth a look at the clock, n bytes of I/O.
func (s *slicer) piece(n int) error {
	s.steps = 0
	s.bytes += n
	if time.Since(s.began) < s.slice {
		return nil
	}
	return s.yield()
}

func (s *slicer) yield() error {
	n := s.bytes
	s.bytes = 0
	err := s.ctx.Err()
	if err == nil && s.turn != nil {
		err = s.turn.Yield(n)
		// The pool knows nothing of clients' work: let what is ready to run go first.
		runtime.Gosched()
	}
	s.began = time.Now()
	return err
}

// await runs f, which waits for the disk, without holding the slot. f has
// always returned when await returns.
func (s *slicer) await(f func() error) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.turn == nil {
		return f()
	}
	var result error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = f()
	}()
	err := s.turn.AwaitEnd(done)
	s.began = time.Now()
	if err != nil {
		return err
	}
	return result
}
