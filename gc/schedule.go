package gc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// schedule is one periodic task with a life of its own.
type schedule struct {
	mu    sync.Mutex
	every *tasks.Periodic
}

func (s *schedule) start(r Runner, code tasks.Code, key string, f threadpool.Func) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.every != nil {
		return errors.New(string(code) + " is already running")
	}
	every, err := r.Every(code, key, f)
	if err != nil {
		return fmt.Errorf("schedule %s: %w", code, err)
	}
	s.every = every
	return nil
}

func (s *schedule) trigger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.every != nil {
		s.every.Trigger()
	}
}

// halt ends the runs and waits for the present one, at most until ctx ends.
func (s *schedule) halt(ctx context.Context) error {
	s.mu.Lock()
	every := s.every
	s.every = nil
	s.mu.Unlock()
	if every == nil {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		every.Stop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the running task: %w", context.Cause(ctx))
	}
}

// counter makes a counter of this package.
func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "replicanode_gc_" + name, Help: help})
}

// collectorFunc reports metrics that are computed when they are asked for.
type collectorFunc struct {
	descs   []*prometheus.Desc
	collect func(ch chan<- prometheus.Metric)
}

// Describe implements prometheus.Collector.
func (c collectorFunc) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collectorFunc) Collect(ch chan<- prometheus.Metric) { c.collect(ch) }
