package replica

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// hostMetrics are the metrics of all partitions of a host. They exist, unregistered, without a registerer too.
type hostMetrics struct {
	h             *Host
	busy          *prometheus.CounterVec
	decrees       *prometheus.CounterVec
	records       *prometheus.CounterVec
	panics        *prometheus.CounterVec
	batchCommands prometheus.Histogram
	applyDecrees  prometheus.Histogram

	applied, durable, queued, serving, replayLeft *prometheus.Desc
}

// partitionMetrics are the resolved children of one partition.
type partitionMetrics struct {
	busy, decrees, records, panics prometheus.Counter
	batchCommands, applyDecrees    prometheus.Histogram
}

func newHostMetrics(h *Host) *hostMetrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "replicanode_replica_" + name, Help: help},
			[]string{"partition"})
	}
	sizes := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "replicanode_replica_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(1, 4, 7),
		})
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("replicanode_replica_"+name, help, []string{"partition"}, nil)
	}
	return &hostMetrics{
		h:             h,
		busy:          counter("busy_total", "Commands refused because the partition's queue was full."),
		decrees:       counter("applied_decrees_total", "Decrees applied."),
		records:       counter("written_records_total", "Database records written by applying decrees."),
		panics:        counter("command_panics_total", "Commands that panicked."),
		batchCommands: sizes("batch_commands", "Commands gathered into one mutation."),
		applyDecrees:  sizes("apply_decrees", "Decrees applied with one database write."),
		applied:       desc("applied_decree", "The applied decree."),
		durable:       desc("durable_decree", "The durable decree."),
		queued:        desc("queued_commands", "Commands waiting to be evaluated."),
		serving:       desc("serving", "Whether the partition takes commands (0 or 1)."),
		replayLeft:    desc("replay_decrees", "Decrees still to be replayed after opening."),
	}
}

func (m *hostMetrics) partition(p *Partition) *partitionMetrics {
	id := strconv.FormatUint(uint64(p.id), 10)
	return &partitionMetrics{
		busy: m.busy.WithLabelValues(id), decrees: m.decrees.WithLabelValues(id),
		records: m.records.WithLabelValues(id), panics: m.panics.WithLabelValues(id),
		batchCommands: m.batchCommands, applyDecrees: m.applyDecrees,
	}
}

// Describe implements prometheus.Collector.
func (m *hostMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.busy.Describe(ch)
	m.decrees.Describe(ch)
	m.records.Describe(ch)
	m.panics.Describe(ch)
	m.batchCommands.Describe(ch)
	m.applyDecrees.Describe(ch)
	for _, d := range []*prometheus.Desc{m.applied, m.durable, m.queued, m.serving, m.replayLeft} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *hostMetrics) Collect(ch chan<- prometheus.Metric) {
	m.busy.Collect(ch)
	m.decrees.Collect(ch)
	m.records.Collect(ch)
	m.panics.Collect(ch)
	m.batchCommands.Collect(ch)
	m.applyDecrees.Collect(ch)
	for _, p := range m.h.partitions {
		id := strconv.FormatUint(uint64(p.id), 10)
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, id)
		}
		gauge(m.applied, float64(p.Applied()))
		gauge(m.durable, float64(p.Durable()))
		p.mu.Lock()
		queued, serving := p.queued, 0.0
		if p.serving.Load() {
			serving = 1
		}
		p.mu.Unlock()
		gauge(m.queued, float64(queued))
		gauge(m.serving, serving)
		replay := p.replay.status(p.Applied(), p.o.Clock())
		gauge(m.replayLeft, float64(replay.To-replay.At))
	}
}

func (m *hostMetrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	return r.Register(m)
}

func (m *hostMetrics) unregister(r prometheus.Registerer) {
	if r != nil {
		r.Unregister(m)
	}
}

func (m *partitionMetrics) applied(steps []step) {
	records := 0
	for i := range steps {
		if steps[i].effects != nil {
			records += len(steps[i].effects.list)
		}
	}
	m.decrees.Add(float64(len(steps)))
	m.records.Add(float64(records))
	m.applyDecrees.Observe(float64(len(steps)))
}
