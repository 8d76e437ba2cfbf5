// Package tasks runs the named background tasks of a replica node on a threadpool.Pool.
package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
)

// ErrUnknownCode is returned for a code without a spec.
var ErrUnknownCode = errors.New("tasks: unknown task code")

// Options configure a Runner.
type Options struct {
	// Pool runs the tasks. Required. Its owner starts it before the runner and stops it after.
	Pool *threadpool.Pool
	// Specs are the known codes. nil: DefaultSpecs.
	Specs []Spec
	// Logger receives one line per failure. nil: none.
	Logger *slog.Logger
	// Registerer receives the runner's metrics. nil: none.
	Registerer prometheus.Registerer
}

// Runner submits tasks by code.
type Runner struct {
	o     Options
	mu    sync.Mutex
	specs map[Code]*Spec
	every []*Periodic
}

// New returns a Runner.
func New(o Options) (*Runner, error) {
	if o.Pool == nil {
		return nil, errors.New("tasks options: Pool is required")
	}
	if o.Specs == nil {
		o.Specs = DefaultSpecs()
	}
	r := &Runner{o: o, specs: map[Code]*Spec{}}
	for _, s := range o.Specs {
		r.specs[s.Code] = &s
	}
	return r, nil
}

// Start begins periodic runs.
func (r *Runner) Start(context.Context) error { return nil }

// Stop ends periodic runs and waits for all jobs.
func (r *Runner) Stop(context.Context) error {
	r.mu.Lock()
	every := r.every
	r.every = nil
	r.mu.Unlock()
	for _, p := range every {
		p.Stop()
	}
	return nil
}

// Job is one submitted task with its retries.
type Job struct {
	done chan struct{}
	err  error
	h    threadpool.Handle
}

// Done is closed when the job has ended.
func (j *Job) Done() <-chan struct{} { return j.done }

// Err is the job's result, valid once Done is closed.
func (j *Job) Err() error { return j.err }

// Cancel ends the job: before it starts, or through its context.
func (j *Job) Cancel() { j.h.Cancel() }

// Submit queues f under code and key. ctx governs the job's whole life.
func (r *Runner) Submit(ctx context.Context, code Code, key string, f threadpool.Func) (*Job, error) {
	r.mu.Lock()
	s := r.specs[code]
	r.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownCode, code)
	}
	j := &Job{done: make(chan struct{})}
	t := threadpool.Task{Code: string(code), Priority: s.Priority, Timeout: s.Timeout, Run: f, Done: func(err error) { j.err = err; close(j.done) }}
	if key != "" {
		t.Key = string(code) + "/" + key
	}
	h, err := r.o.Pool.Submit(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("submit %s %s: %w", code, key, err)
	}
	j.h = h
	return j, nil
}

// Periodic is a task that runs again and again and never overlaps itself.
type Periodic struct {
	trigger chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// Trigger runs the task now, or right after its present run. Triggers that wait coalesce.
func (p *Periodic) Trigger() {
	select {
	case p.trigger <- struct{}{}:
	default:
	}
}

// Stop ends the runs and waits for the present one.
func (p *Periodic) Stop() {
	p.once.Do(func() { close(p.stop) })
	<-p.stopped
}

// Every runs f with the period and jitter of code's spec.
func (r *Runner) Every(code Code, key string, f threadpool.Func) (*Periodic, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.specs[code]
	if s == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownCode, code)
	}
	p := &Periodic{trigger: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	r.every = append(r.every, p)
	go func() {
		defer close(p.stopped)
		for {
			var tick <-chan time.Time
			if s.Period > 0 {
				t := time.NewTimer(s.Period)
				defer t.Stop()
				tick = t.C
			}
			select {
			case <-p.stop:
				return
			case <-p.trigger:
			case <-tick:
			}
			if j, err := r.Submit(context.Background(), code, key, f); err == nil {
				select {
				case <-j.Done():
				case <-p.stop:
					j.Cancel()
					<-j.Done()
				}
			}
		}
	}()
	return p, nil
}

// SetPriority changes the level of a code's tasks.
func (r *Runner) SetPriority(code Code, p threadpool.Priority) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.specs[code]
	if s == nil {
		return fmt.Errorf("%w: %s", ErrUnknownCode, code)
	}
	s.Priority = p
	return nil
}

// Specs returns the specs in force, in the order they were given.
func (r *Runner) Specs() []Spec {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Spec
	for _, s := range r.o.Specs {
		out = append(out, *r.specs[s.Code])
	}
	return out
}

// Override is one change of one field of one spec.
type Override struct {
	Code  Code
	Field string
	Value string
}

// ParseOverride reads "code=level" or "code.field=value".
func ParseOverride(s string) (Override, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" || value == "" {
		return Override{}, fmt.Errorf("override %q: want code=level or code.field=value", s)
	}
	code, field, ok := strings.Cut(name, ".")
	if !ok {
		field = "priority"
	}
	return Override{Code: Code(code), Field: field, Value: value}, nil
}

// Apply changes a spec at run time.
func (r *Runner) Apply(o Override) error {
	p, err := threadpool.ParsePriority(o.Value)
	if err != nil {
		return err
	}
	return r.SetPriority(o.Code, p)
}
