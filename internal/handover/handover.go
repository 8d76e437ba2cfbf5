// Package handover lets work that may hang, because it reads from a disk that does not answer, give its slot away.
//
// A slot belongs to the goroutine of a task. [Run] makes the work on another one, and keeps the slot for it as long as it shows signs of
// life, which are its own calls for the slot: one call of Do is made on the task's goroutine, while the work waits. When there is no sign for
// too long the slot is given away until there is one. The work is always over when Run returns.
package handover

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Patience is how long work may keep its slot without a sign of life. Slices are a few milliseconds.
const Patience = time.Second

// Slot is what is needed of a task's turn; *threadpool.Turn satisfies it.
type Slot interface {
	// AwaitEnd returns when ch is ready and never before, without the slot until then.
	AwaitEnd(ch <-chan struct{}) error
}

// Work is a running Run's side that the work sees.
type Work struct {
	// mu guards what follows.
	mu sync.Mutex
	// sign is closed when call is set or the work has ended; a new one is made for the next.
	sign  chan struct{}
	call  func()
	ended bool
}

// Do makes a call on the task's goroutine, with the slot, and returns when it has returned. Only the work's goroutine may use it.
func (w *Work) Do(call func() error) (err error) {
	done := make(chan struct{})
	var panicked any
	w.mu.Lock()
	w.call = func() {
		defer close(done)
		defer func() { panicked = recover() }() // it ends the work first, and then the task
		err = call()
	}
	close(w.sign)
	w.mu.Unlock()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// Run makes f, and returns what it returned. A panic of f is one of Run.
func Run(slot Slot, f func(w *Work) error) error {
	w := &Work{sign: make(chan struct{})}
	var result error
	var panicked any
	go func() {
		defer func() {
			if v := recover(); v != nil {
				panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
			}
			w.mu.Lock()
			w.ended = true
			close(w.sign)
			w.mu.Unlock()
		}()
		result = f(w)
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	for sign := w.sign; ; {
		timer.Reset(Patience)
		select {
		case <-sign:
		case <-timer.C:
			// That the task is cancelled is told to the work by its next call.
			_ = slot.AwaitEnd(sign)
		}
		w.mu.Lock()
		call, ended := w.call, w.ended
		if !ended {
			w.call, w.sign = nil, make(chan struct{})
			sign = w.sign
		}
		w.mu.Unlock()
		if ended {
			break
		}
		call()
	}
	if panicked != nil {
		panic(panicked)
	}
	return result
}

// Turn is what is needed of a task's turn for [OnOwn]; *threadpool.Turn satisfies it.
type Turn interface {
	Slot
	// Yield charges ioBytes and may give the slot away.
	Yield(ioBytes int) error
	// Await gives the slot away until ch is ready, or the task is cancelled.
	Await(ch <-chan struct{}) error
}

// OwnTurn is the turn of work that [OnOwn] makes: each of its calls is one of the task's turn, made by [Work.Do].
type OwnTurn struct {
	*Work
	turn Turn
}

// OnOwn is [Run] for work that wants a turn.
func OnOwn(turn Turn, f func(turn *OwnTurn) error) error {
	return Run(turn, func(w *Work) error { return f(&OwnTurn{w, turn}) })
}

// Yield is that of [Turn].
func (o *OwnTurn) Yield(ioBytes int) error {
	return o.Do(func() error { return o.turn.Yield(ioBytes) })
}

// Await is that of [Turn].
func (o *OwnTurn) Await(ch <-chan struct{}) error {
	return o.Do(func() error { return o.turn.Await(ch) })
}

// AwaitEnd is that of [Slot].
func (o *OwnTurn) AwaitEnd(ch <-chan struct{}) error {
	return o.Do(func() error { return o.turn.AwaitEnd(ch) })
}
