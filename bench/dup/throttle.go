package dup

import (
	"context"
	"errors"
	"time"

	"replicanode/bench/process"
	"replicanode/bench/report"
)

// A throttled backup runs for throttleRun of every throttlePeriod: it confirms, but far less than is written.
const (
	throttlePeriod = 500 * time.Millisecond
	throttleRun    = 10 * time.Millisecond
	throttleSample = 100 * time.Millisecond
)

// throttled makes the backup slow under load, and looks at what the controller of priorities makes of a lag that no priority can
// help. Then the backup catches up.
func (e *experiment) throttled(ctx context.Context) error {
	writes, err := e.startLoad(ctx, 4)
	if err != nil {
		return err
	}
	defer e.stopLoad(ctx, writes)
	begun := time.Now()
	slow, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- throttle(slow, e.backup) }()
	t := Throttled{LimitedBy: map[string]int{}}
	err = e.watchThrottled(ctx, &t, begun)
	stop()
	if err = errors.Join(err, <-ended); err != nil {
		return err
	}
	e.result.Throttled = &t
	if err := e.stopLoad(ctx, writes); err != nil {
		return err
	}
	return e.settle(ctx)
}

// watchThrottled samples until the part is over, and counts what the controller decided in it.
func (e *experiment) watchThrottled(ctx context.Context, t *Throttled, begun time.Time) error {
	for time.Since(begun) < seconds(e.opts.ThrottleSeconds) {
		if err := e.sleep(ctx, throttleSample); err != nil {
			return err
		}
		lag, err := e.admin.lag(ctx)
		if err != nil {
			return err
		}
		seen, err := e.admin.controller(ctx)
		if err != nil {
			return err
		}
		t.LagMsMax = max(t.LagMsMax, report.DurationMillis(lag.worst))
		t.LimitedBy[seen.Signals.LagLimit.String()]++
	}
	seen, err := e.admin.controller(ctx)
	for _, d := range seen.Decisions {
		switch {
		case d.At.Before(begun):
		case d.Lever == "low":
			t.LowMoved++
		default:
			t.LevelsMoved++
		}
	}
	return err
}

// throttle lets a process run only a little until ctx ends, and then freely.
func throttle(ctx context.Context, p *process.Process) error {
	tick := time.NewTicker(throttlePeriod)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := p.Suspend(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if err := p.Resume(); err != nil {
			return err
		}
		select {
		case <-time.After(throttleRun):
		case <-ctx.Done():
		}
	}
	return nil
}
