package gc

import (
	"time"

	"replicanode/internal/handover"
)

// awaitCall runs f without holding the slot, however long it hangs; f has always
// returned when awaitCall returns.
func awaitCall(turn Turn, f func() error) error {
	var result error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = f()
	}()
	if err := turn.AwaitEnd(done); err != nil {
		return err
	}
	return result
}

// onOwn makes f on a goroutine of its own, with a turn of its own: however long it hangs
// between two calls of it, it holds no slot. It has always returned when onOwn returns.
func onOwn(turn Turn, f func(turn Turn) error) error {
	return handover.Run(turn, func(w *handover.Work) error { return f(&ownTurn{w, turn}) })
}

// ownTurn is the turn of work that is made by onOwn.
type ownTurn struct {
	w    *handover.Work
	turn Turn
}

func (o *ownTurn) Yield(ioBytes int) error {
	return o.w.Do(func() error { return o.turn.Yield(ioBytes) })
}

func (o *ownTurn) Sleep(d time.Duration) error {
	return o.w.Do(func() error { return o.turn.Sleep(d) })
}

func (o *ownTurn) Await(ch <-chan struct{}) error {
	return o.w.Do(func() error { return o.turn.Await(ch) })
}

func (o *ownTurn) AwaitEnd(ch <-chan struct{}) error {
	return o.w.Do(func() error { return o.turn.AwaitEnd(ch) })
}
