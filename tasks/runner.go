package tasks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
)

// ErrStopped is returned by Submit and Every once Stop was called.
var ErrStopped = errors.New("tasks: stopped")

// Options configure a Runner.
type Options struct {
	// Pool runs the tasks. Required. Its owner starts it before the runner and stops it after.
	Pool *threadpool.Pool
	// Specs are the known codes. nil: DefaultSpecs.
	Specs []Spec
	// Overrides are changes of Specs that the process was configured with. What an operator changes and takes back is as they say.
	Overrides []Override
	// Seed makes jitter and backoff repeatable. 0: different each time.
	Seed uint64
	// Adaptive configures the controller, which is off until SetAdaptive turns it on, unless its Enabled is set.
	Adaptive AdaptiveOptions
	// Logger receives one line per failure and per change. nil: none.
	Logger *slog.Logger
	// Registerer receives the runner's metrics. nil: none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if o.Specs == nil {
		o.Specs = DefaultSpecs()
	}
	for i := range o.Specs {
		o.Specs[i].EnsureDefaults()
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.Adaptive.EnsureDefaults()
}

// Validate reports the first field out of range. It expects EnsureDefaults to have run.
func (o *Options) Validate() error {
	if o.Pool == nil {
		return errors.New("tasks options: Pool is required")
	}
	seen := map[Code]bool{}
	for i := range o.Specs {
		s := &o.Specs[i]
		if err := s.Validate(); err != nil {
			return fmt.Errorf("tasks options: %w", err)
		}
		if seen[s.Code] {
			return fmt.Errorf("tasks options: two specs for %s", s.Code)
		}
		seen[s.Code] = true
	}
	if err := o.Adaptive.Validate(); err != nil {
		return fmt.Errorf("tasks options: %w", err)
	}
	return nil
}

// codeState is what the runner keeps about one code.
type codeState struct {
	code Code
	// spec is what is in force: the one of Options.Specs, table, after the changes of Options.Overrides, flags, which give
	// configured, and those of an operator.
	spec, table, configured Spec
	flags, operator         changes
	// lifted, when isLifted, is the level the controller has put in place of the spec's.
	lifted         threadpool.Priority
	isLifted       bool
	floor          threadpool.Priority // SetFloor
	metrics        codeMetrics
	active         int
	done, failed   uint64
	retried        uint64
	attemptsFailed [kinds]uint64
	lastError      string
	lastErrorAt    time.Time
}

// priority is the level in force. The controller only raises: what it lifts a code to is no bound for what an operator sets meanwhile.
func (s *codeState) priority() threadpool.Priority {
	if s.isLifted {
		return max(s.lifted, s.spec.Priority, s.floor)
	}
	return max(s.spec.Priority, s.floor)
}

// Runner submits tasks by code.
type Runner struct {
	pool    *threadpool.Pool
	log     *slog.Logger
	metrics *metrics

	mu        sync.Mutex
	random    *rand.Rand
	order     []*codeState
	codes     map[Code]*codeState
	jobs      map[*Job]struct{}
	periodics map[*Periodic]struct{}
	started   bool
	stopped   bool

	adaptive *controller
}

// New returns a runner. Jobs may be submitted at once; periodic tasks begin with Start.
func New(o Options) (*Runner, error) {
	o.Specs = append([]Spec(nil), o.Specs...)
	if len(o.Specs) == 0 {
		o.Specs = nil
	}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	r := &Runner{
		pool: o.Pool, log: o.Logger, metrics: m, random: newRandom(o.Seed), codes: map[Code]*codeState{},
		jobs: map[*Job]struct{}{}, periodics: map[*Periodic]struct{}{},
	}
	for _, s := range o.Specs {
		st := &codeState{code: s.Code, spec: s, table: s, configured: s, metrics: m.code(s.Code)}
		r.order = append(r.order, st)
		r.codes[s.Code] = st
	}
	if err := r.configure(o.Overrides); err != nil {
		return nil, fmt.Errorf("tasks options: %w", err)
	}
	for _, st := range r.order {
		if err := r.install(st); err != nil {
			return nil, err
		}
	}
	r.adaptive = newController(r, o.Adaptive)
	return r, nil
}

// configure makes the changes of Options.Overrides.
func (r *Runner) configure(overrides []Override) (err error) {
	for _, o := range overrides {
		st := r.codes[o.Code]
		if st == nil {
			return &OverrideError{o.String(), fmt.Errorf("%w %q", ErrUnknownCode, string(o.Code))}
		}
		if st.flags, err = st.flags.with(o); err != nil {
			return err
		}
	}
	for _, st := range r.order {
		if st.configured, err = st.flags.apply(st.table); err != nil {
			return &OverrideError{st.flags.String(), err}
		}
		st.flags = st.flags.effective(&st.table, &st.configured)
		st.spec = st.configured
	}
	return nil
}

// install brings the pool in line with a code's spec and level.
func (r *Runner) install(st *codeState) error {
	s := &st.spec
	l := threadpool.CodeLimits{MaxRunning: s.MaxRunning, MaxStarted: s.MaxStarted, MaxQueued: s.MaxQueued}
	if err := r.pool.SetCodeLimits(string(s.Code), l); err != nil {
		return fmt.Errorf("limits of task %s: %w", s.Code, err)
	}
	if err := r.pool.SetPriority(string(s.Code), st.priority()); err != nil {
		return fmt.Errorf("priority of task %s: %w", s.Code, err)
	}
	st.metrics.level(st.priority())
	return nil
}

// Start begins periodic runs and, if it is enabled, the controller. ctx bounds only the start.
func (r *Runner) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	if r.started || r.stopped {
		r.mu.Unlock()
		return errors.New("tasks: started twice")
	}
	r.started = true
	for p := range r.periodics {
		p.arm(r.firstDelay(p.code))
	}
	r.mu.Unlock()
	r.adaptive.start()
	return nil
}

// Stop takes no new jobs, ends periodic runs, cancels all jobs and waits for them, at most until ctx ends.
func (r *Runner) Stop(ctx context.Context) error {
	r.adaptive.stop()
	r.mu.Lock()
	r.stopped = true
	jobs := make([]*Job, 0, len(r.jobs))
	for j := range r.jobs {
		jobs = append(jobs, j)
	}
	for p := range r.periodics {
		p.halt()
	}
	r.mu.Unlock()
	for _, j := range jobs {
		j.Cancel()
	}
	for _, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return fmt.Errorf("stop tasks: waiting for %s %s: %w", j.code.code, j.key, ctx.Err())
		}
	}
	return nil
}

// Submit queues f under code and key. ctx governs the job's whole life, all attempts included. Jobs of one code and
// key run one at a time, in order; an empty key does not bind.
func (r *Runner) Submit(ctx context.Context, code Code, key string, f threadpool.Func) (*Job, error) {
	return r.submit(ctx, code, key, f, nil)
}

func (r *Runner) submit(ctx context.Context, code Code, key string, f threadpool.Func, then func(error)) (*Job, error) {
	r.mu.Lock()
	st := r.codes[code]
	switch {
	case st == nil:
		r.mu.Unlock()
		return nil, fmt.Errorf("submit %s: %w", code, ErrUnknownCode)
	case r.stopped:
		r.mu.Unlock()
		return nil, fmt.Errorf("submit %s: %w", code, ErrStopped)
	}
	j := &Job{r: r, code: st, key: key, done: make(chan struct{}), then: then}
	t := threadpool.Task{
		Code: string(code), Priority: st.spec.Priority, Timeout: st.spec.Timeout, Slice: st.spec.Slice,
		Run: f, Retry: j.retry, Done: j.finish,
	}
	if key != "" {
		t.Key = string(code) + "/" + key
	}
	r.jobs[j] = struct{}{}
	st.active++
	// The handle must be in place before anyone can find the job to cancel it: the lock is held over the submission,
	// which never blocks, and the pool never calls back from it.
	h, err := r.pool.Submit(ctx, t)
	if err != nil {
		delete(r.jobs, j)
		st.active--
		r.mu.Unlock()
		return nil, fmt.Errorf("submit %s %s: %w", code, key, err)
	}
	j.handle = h
	r.mu.Unlock()
	return j, nil
}

// Specs returns the specs in force, in the order they were given. Levels moved by the controller or SetFloor are in Stats.
func (r *Runner) Specs() []Spec {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Spec, 0, len(r.order))
	for _, st := range r.order {
		out = append(out, st.spec)
	}
	return out
}

// SetPriority changes the level of a code's tasks, queued, parked and running ones included.
func (r *Runner) SetPriority(code Code, p threadpool.Priority) error {
	return r.Apply(Override{Code: code, Field: "priority", Value: p.String()})
}

// SetFloor keeps a code's tasks, queued, parked and running ones included, at p at least, whatever its spec and the controller say. Low
// ends that.
func (r *Runner) SetFloor(code Code, p threadpool.Priority) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.codes[code]
	if st == nil {
		return fmt.Errorf("%w %q", ErrUnknownCode, string(code))
	}
	if st.floor == p {
		return nil
	}
	before := st.floor
	st.floor = p
	if err := r.install(st); err != nil {
		st.floor = before
		return err
	}
	r.log.Info("least level of a task changed", "code", string(code), "from", before.String(), "to", p.String())
	return nil
}
