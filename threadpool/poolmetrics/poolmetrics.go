// Package poolmetrics exports a threadpool.Pool to Prometheus.
//
// The pool keeps its own counters and histograms under its lock; this collector reads them when it is scraped, so that
// a scrape costs the pool one lock and a copy, and a task costs nothing more.
//
// All names start with replicanode_threadpool_. Per code and level: queue depth of the level (queued_tasks), parked_tasks,
// wait_seconds and run_seconds histograms, submitted, finished and failed totals. Per code: queued, running and
// parked tasks, and totals of yields, parks by what was waited for, aged, shared and inherited picks, coalesced, rejected,
// canceled, expired, timed out, panicked and retried tasks, and bytes charged. Per pool: slots by state, and keys.
package poolmetrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
)

const prefix = "replicanode_threadpool_"

// Source is the pool, as far as its metrics go.
type Source interface {
	Stats() threadpool.Stats
}

// Collector is a prometheus.Collector for one pool.
type Collector struct {
	source                                   Source
	slots, levelQueued, levelParked, keys    *prometheus.Desc
	codeTasks, wait, run                     *prometheus.Desc
	submitted, started, finished, failed     *prometheus.Desc
	yields, parks, picks, events, bytesTotal *prometheus.Desc
	bounds                                   []float64
}

// New returns a collector for a pool, to be registered by the caller.
func New(source Source) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	c := &Collector{
		source:      source,
		slots:       desc("slots", "Slots by state: running, starting, idle.", "state"),
		levelQueued: desc("queued_tasks", "Tasks that wait to be started, by level.", "level"),
		levelParked: desc("parked_tasks", "Tasks that have started and hold no slot, by level.", "level"),
		keys:        desc("keys", "Keys in use."),
		codeTasks:   desc("code_tasks", "Tasks of a code by state: queued, running, parked.", "code", "state"),
		wait:        desc("wait_seconds", "Time from submission to start.", "code", "level"),
		run:         desc("run_seconds", "Slot time of a task.", "code", "level"),
		submitted:   desc("submitted_total", "Tasks taken in.", "code", "level"),
		started:     desc("started_total", "Tasks started, retries included.", "code", "level"),
		finished:    desc("finished_total", "Tasks whose body has returned for good.", "code", "level"),
		failed:      desc("failed_total", "Tasks that ended with an error.", "code", "level"),
		yields:      desc("yields_total", "Calls of Yield by tasks that have ended.", "code"),
		parks:       desc("parks_total", "Times a task gave its slot away, by what it waited for: slot, sleep, await, io_budget.", "code", "for"),
		picks:       desc("guarded_picks_total", "Picks owed to a guard (aged, shared) and tasks lifted by a follower of their key (inherited).", "code", "rule"),
		events:      desc("task_events_total", "Tasks coalesced, rejected, canceled, expired, timed_out, panicked, retried.", "code", "event"),
		bytesTotal:  desc("io_bytes_total", "Bytes charged to the I/O budget by tasks that have ended.", "code"),
	}
	for _, b := range threadpool.DistributionBounds() {
		c.bounds = append(c.bounds, b.Seconds())
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.slots, c.levelQueued, c.levelParked, c.keys, c.codeTasks, c.wait, c.run, c.submitted, c.started, c.finished,
		c.failed, c.yields, c.parks, c.picks, c.events, c.bytesTotal,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Stats()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(c.slots, s.Running, "running")
	gauge(c.slots, s.Starting, "starting")
	gauge(c.slots, max(0, s.Workers-s.Running-s.Starting), "idle")
	gauge(c.keys, s.Keys)
	for l := threadpool.Low; l <= threadpool.High; l++ {
		gauge(c.levelQueued, s.Queued[l], l.String())
		gauge(c.levelParked, s.Parked[l], l.String())
	}
	for i := range s.Codes {
		c.collectCode(out, &s.Codes[i])
	}
}

func (c *Collector) collectCode(out chan<- prometheus.Metric, s *threadpool.CodeStats) {
	emit := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, append([]string{s.Code}, labels...)...)
	}
	emit(c.codeTasks, prometheus.GaugeValue, float64(s.Queued), "queued")
	emit(c.codeTasks, prometheus.GaugeValue, float64(s.Running), "running")
	emit(c.codeTasks, prometheus.GaugeValue, float64(s.Parked), "parked")
	emit(c.yields, prometheus.CounterValue, float64(s.Yields))
	emit(c.bytesTotal, prometheus.CounterValue, float64(s.IOBytes))
	for _, x := range []struct {
		d     *prometheus.Desc
		label string
		v     uint64
	}{
		{c.parks, "slot", s.GaveWay}, {c.parks, "sleep", s.Slept}, {c.parks, "await", s.Awaited}, {c.parks, "io_budget", s.Throttled},
		{c.picks, "aged", s.Aged}, {c.picks, "shared", s.Shared}, {c.picks, "inherited", s.Inherited},
		{c.events, "coalesced", s.Coalesced}, {c.events, "rejected", s.Rejected}, {c.events, "canceled", s.Canceled}, {c.events, "expired", s.Expired},
		{c.events, "timed_out", s.Timeouts}, {c.events, "panicked", s.Panics}, {c.events, "retried", s.Retries},
	} {
		emit(x.d, prometheus.CounterValue, float64(x.v), x.label)
	}
	for i := range s.Levels {
		c.collectLevel(out, s.Code, &s.Levels[i])
	}
}

func (c *Collector) collectLevel(out chan<- prometheus.Metric, code string, s *threadpool.LevelStats) {
	if s.Submitted == 0 && s.Started == 0 && s.Finished == 0 {
		return
	}
	level := s.Priority.String()
	count := func(d *prometheus.Desc, v uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), code, level)
	}
	count(c.submitted, s.Submitted)
	count(c.started, s.Started)
	count(c.finished, s.Finished)
	count(c.failed, s.Failed)
	c.distribution(out, c.wait, &s.Wait, code, level)
	c.distribution(out, c.run, &s.Run, code, level)
}

func (c *Collector) distribution(out chan<- prometheus.Metric, d *prometheus.Desc, v *threadpool.Distribution, labels ...string) {
	buckets := make(map[float64]uint64, len(c.bounds))
	for i, n := range v.Buckets {
		buckets[c.bounds[i]] = n
	}
	out <- prometheus.MustNewConstHistogram(d, v.Count, float64(v.Sum)/float64(time.Second), buckets, labels...)
}
