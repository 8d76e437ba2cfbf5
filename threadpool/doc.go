// Package threadpool is a priority scheduler for the long background tasks of a storage process.
//
// A pool has a number of slots and three queues, one per level (High, Common, Low). A task runs on a slot; between slices of
// its work it calls Turn.Yield, which lets something more urgent have the slot. A task that sleeps, waits for a channel, for
// I/O tokens or for its next attempt is parked and holds no slot. Goroutines come from ants; the queues, the choice
// and the parking are the pool's own.
//
//	p, err := threadpool.New(threadpool.Options{Workers: 4})
//	err = p.Start(ctx)
//	h, err := p.Submit(ctx, threadpool.Task{Code: "checkpoint", Priority: threadpool.Low, Run: copyPartition})
//	err = p.Stop(ctx)
//
// # Rules of picking
//
// The choice is made when a slot frees, in this order:
//
//  1. Left out are tasks that a limit (per code, per level, on parked tasks), a reserve, their key or the I/O budget holds back.
//  2. If Low is owed a slice of its guaranteed share, the first Low task.
//  3. The highest effective level: the task's own (or the one given to it or its code at run time), raised by one
//     for each MaxWait it has waited, or to that of a task of the same key that waits behind it.
//  4. Within a level the earliest arrival; a parked task keeps its place.
//
// # What always holds
//
//   - A free slot never waits while a runnable task does.
//   - Low never holds the slots reserved for others, aged or not.
//   - Tasks with one key run one at a time, in the order of submission.
//   - Every queue is bounded; beyond its bound Submit fails at once with a typed error.
//   - A cancelled task that has not started never starts, and leaves its queue at once.
//   - A panic, and runtime.Goexit, end the task and cost no slot.
//   - Done is called exactly once for every task that Submit accepted.
//
// # Cost
//
// One lock guards the pool. A task costs two sections of a few dozen nanoseconds under it, one clock reading, and no
// allocation; a Yield that finds nothing more urgent is two atomic loads. A waiting task takes 128 bytes, and a million of them
// make the next one little dearer than ten. Handles and turns are recycled with their tasks, and checked: using one too late
// does nothing.
//
// # Time
//
// Times come from the processor's counter where there is one that runs evenly, set by the system's clock every
// millisecond. The wait of a task that finds others waiting counts from the pool's last look at the clock, which is
// the end of the task before or at most about a millisecond earlier; no order depends on it. In a testing/synctest
// bubble all times are exact.
//
// Lock order: the pool's lock, then that of a task's context. No callback (Run, Done, Retry, OnStuck) is called under the
// pool's lock.
package threadpool
