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
	return handover.OnOwn(turn, func(own *handover.OwnTurn) error { return f(&ownTurn{own, turn}) })
}

// ownTurn is the turn of work that is made by onOwn.
type ownTurn struct {
	*handover.OwnTurn
	turn Turn
}

func (o *ownTurn) Sleep(d time.Duration) error {
	return o.Do(func() error { return o.turn.Sleep(d) })
}
