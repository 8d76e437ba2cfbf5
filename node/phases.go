package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"replicanode/server/admin"
)

// Names of the start-up phases, in their order.
const (
	PhaseListeners   = "bind_listeners"
	PhaseFolder      = "open_data_folder"
	PhasePool        = "start_long_pool"
	PhaseReplicas    = "open_replicas"
	PhaseDuplication = "start_duplication"
	PhaseMaintenance = "start_maintenance"
	PhaseClients     = "serve_clients"
	PhaseServing     = "serving"
	PhaseStopping    = "stopping"
)

// ErrPhaseDeadline is wrapped by the error of a start-up phase that did not end in time.
var ErrPhaseDeadline = errors.New("start-up phase missed its deadline")

// phases tracks the start-up sequence and answers readiness. The zero value is before the first phase.
type phases struct {
	logger *slog.Logger
	// reasons reports, for the phase that runs, what is not ready yet; nil when the phase has nothing to add.
	mu      sync.Mutex
	name    string
	since   time.Time
	done    int
	total   int
	failure error
	reasons func() []string
}

// step is one phase of start-up.
type step struct {
	name     string
	deadline time.Duration
	run      func(ctx context.Context) error
	// quiet steps log nothing, and their errors stand for themselves: they fail over what the operator typed.
	quiet bool
	// reasons says what the phase still waits for; optional.
	reasons func() []string
}

// run executes the steps in order, each within its own deadline, and stops at the first that fails.
func (p *phases) run(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := p.runStep(ctx, s); err != nil {
			p.mu.Lock()
			p.failure = err
			p.mu.Unlock()
			return err
		}
	}
	p.enter(PhaseServing, nil)
	return nil
}

func (p *phases) runStep(ctx context.Context, s step) error {
	p.enter(s.name, s.reasons)
	began := time.Now()
	sctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	err := s.run(sctx)
	if err == nil {
		if !s.quiet {
			p.logger.Info("start-up phase done", "phase", s.name, "seconds", time.Since(began).Seconds())
		}
		return nil
	}
	if s.quiet && ctx.Err() == nil && sctx.Err() == nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %s took more than %s (%v)", ErrPhaseDeadline, s.name, s.deadline, err)
	} else {
		err = fmt.Errorf("start-up phase %s: %w", s.name, err)
	}
	return err
}

func (p *phases) enter(name string, reasons func() []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name, p.since, p.done, p.total, p.reasons = name, time.Now(), 0, 0, reasons
}

// progress reports units of the current phase.
func (p *phases) progress(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// loading is what clients are told before the node serves them.
func (p *phases) loading() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total > 0 {
		return fmt.Sprintf("the node is starting: %s, %d of %d done", p.name, p.done, p.total)
	}
	return "the node is starting: " + p.name
}

// readiness is the state of start-up alone; the node adds what went wrong since.
func (p *phases) readiness() admin.Readiness {
	p.mu.Lock()
	r := admin.Readiness{
		Ready:   p.name == PhaseServing && p.failure == nil,
		Phase:   p.name,
		Done:    p.done,
		Total:   p.total,
		Seconds: time.Since(p.since).Seconds(),
	}
	failure, reasons := p.failure, p.reasons
	p.mu.Unlock()
	if failure != nil {
		r.Reasons = append(r.Reasons, failure.Error())
	}
	if reasons != nil {
		r.Reasons = append(r.Reasons, reasons()...)
	}
	if !r.Ready && len(r.Reasons) == 0 {
		r.Reasons = append(r.Reasons, "start-up phase "+r.Phase+" is running")
	}
	return r
}
