package tasks

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
)

// metrics are the runner's collectors; with a nil Registerer they count for nobody.
type metrics struct {
	jobs       *prometheus.CounterVec
	failures   *prometheus.CounterVec
	priority   *prometheus.GaugeVec
	adaptions  *prometheus.CounterVec
	adaptiveOn prometheus.Gauge
}

// codeMetrics are one code's children, resolved once.
type codeMetrics struct {
	done, failedJobs prometheus.Counter
	kinds            [kinds]prometheus.Counter
	priority         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		jobs:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "replicanode_tasks_jobs_total", Help: "Jobs that have ended, by result: done, failed."}, []string{"code", "result"}),
		failures:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "replicanode_tasks_failed_attempts_total", Help: "Attempts that failed, by kind of error."}, []string{"code", "kind"}),
		priority:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "replicanode_tasks_priority", Help: "Level in force: 0 low, 1 common, 2 high."}, []string{"code"}),
		adaptions:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "replicanode_tasks_adaptive_decisions_total", Help: "Changes made by the controller, by reason."}, []string{"reason"}),
		adaptiveOn: prometheus.NewGauge(prometheus.GaugeOpts{Name: "replicanode_tasks_adaptive_enabled", Help: "1 when the controller is on."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.jobs, m.failures, m.priority, m.adaptions, m.adaptiveOn} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register task metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) code(c Code) codeMetrics {
	cm := codeMetrics{
		done: m.jobs.WithLabelValues(string(c), "done"), failedJobs: m.jobs.WithLabelValues(string(c), "failed"),
		priority: m.priority.WithLabelValues(string(c)),
	}
	for k := range kinds {
		cm.kinds[k] = m.failures.WithLabelValues(string(c), ErrorKind(k).String())
	}
	return cm
}

func (m *codeMetrics) failed(k ErrorKind)          { m.kinds[k].Inc() }
func (m *codeMetrics) level(p threadpool.Priority) { m.priority.Set(float64(p)) }
func (m *codeMetrics) ended(err error) {
	if err == nil {
		m.done.Inc()
		return
	}
	m.failedJobs.Inc()
}
