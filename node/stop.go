package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"replicanode/replica"
)

// The end of the time that Stop has is kept for the parts that come after one that hangs.
const (
	stopReserve = 500 * time.Millisecond // at most, and never more than a tenth
	partGrace   = 50 * time.Millisecond  // for each part, out of the reserve
)

// StopError says which parts had not ended when the time for stopping was over. They may still be at work and end with the process.
// Nothing that was acknowledged is lost by that: it is in the private logs, which the next start replays.
type StopError struct {
	Abandoned []string
}

func (e *StopError) Error() string {
	return fmt.Sprintf("stopping took too long; abandoned: %s; the next start replays the logs, nothing acknowledged is lost", strings.Join(e.Abandoned, ", "))
}

// Stop ends what was started, in reverse order, and returns when that is done or ctx ends. Every part is told to stop even when one
// fails or the time is over; those that have not ended by then are abandoned and named by a *StopError, and the data folder stays
// locked until the process ends, as it does with a database that cannot be closed on a full disk (*replica.LeftOpenError). All errors are joined.
func (n *Node) Stop(ctx context.Context) error {
	n.phases.enter(PhaseStopping, nil)
	n.mu.Lock()
	stops := n.stops
	n.stops = nil
	n.mu.Unlock()
	began := time.Now()
	log := n.opts.Logger
	if !n.announced || len(stops) == 0 {
		log = slog.New(slog.DiscardHandler) // nothing was said of a start, either
	}
	log.Info("stopping", "parts", len(stops))
	parts, cancel := withReserve(ctx)
	defer cancel()
	var errs []error
	var abandoned []string
	var open *replica.LeftOpenError
	inUse := false
	for i := len(stops) - 1; i >= 0; i-- {
		s := stops[i]
		if s.name == dataFolder && (len(abandoned) > 0 || inUse) {
			continue // what was abandoned may still write there
		}
		ended, err := s.bounded(ctx, parts)
		switch {
		case !ended || parts.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
			abandoned = append(abandoned, s.name)
		case errors.As(err, &open):
			inUse = true
			fallthrough
		case err != nil:
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		if s.name == clientsServer && ended && err == nil {
			log.Info("drained: clients have their replies", "seconds", time.Since(began).Seconds())
		}
	}
	if len(abandoned) > 0 {
		errs = append(errs, &StopError{abandoned})
	}
	log.Info("stopped", "seconds", time.Since(began).Seconds(), "errors", len(errs), "abandoned", len(abandoned))
	return errors.Join(errs...)
}

// withReserve is ctx with an earlier deadline, so that time is left for what follows a part that hangs.
func withReserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(stopReserve, time.Until(deadline)/10)))
}

// bounded stops a part, whether it heeds a context or not. Without ended it has not returned, and nobody waits for it any more.
func (s stop) bounded(ctx, parts context.Context) (ended bool, err error) {
	done := make(chan error, 1)
	go func() { done <- s.run(parts) }()
	select {
	case err = <-done:
		return true, err
	case <-parts.Done():
	}
	grace := time.NewTimer(partGrace)
	defer grace.Stop()
	select {
	case err = <-done:
		return true, err
	case <-grace.C:
	case <-ctx.Done():
	}
	return false, nil
}
