// Package tasks runs the named background tasks of a storage node on a threadpool.Pool.
//
// Everything known about a kind of task is data: a Spec, in one table, with its priority, limits, timeout, slice, period
// and retry policy. Specs are validated, can be shown, and can be changed field by field, by flag and at run time
// (Override, Runner.Apply); what is queued, parked or running obeys at once. Runner.Overridden says who
// changed what, and the value Default takes an operator's change back.
//
//	r, err := tasks.New(tasks.Options{Pool: pool})
//	err = r.Start(ctx)
//	job, err := r.Submit(ctx, tasks.LoadPrivateLog, "partition/remote", load)
//	stat, err := r.Every(tasks.DiskStat, "", measure)
//
// Rules:
//   - Jobs of one code and key run one at a time, in order of submission, retries included. Keys of different codes are
//     independent of each other.
//   - A failed attempt is retried as the spec says for its kind of error, with exponential backoff and full jitter;
//     waiting for the next attempt holds neither slot nor goroutine.
//   - A periodic task never overlaps itself and never piles up: its next interval begins when its run ends.
//   - The controller (Adaptive) is off unless turned on, changes nothing it was not given a signal for, and returns
//     everything to the configured values when it is turned off or its signals go stale.
//
// Lock order: the controller's lock, then Runner.mu, then Periodic.mu, then the pool's own lock. Callbacks of the pool take Runner.mu.
package tasks
