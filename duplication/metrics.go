package duplication

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/peer/peerpb"
)

// collector computes a source's figures when they are asked for.
type collector struct {
	source  *Source
	figures []figure
	state   *prometheus.Desc
	limited *prometheus.Desc
}

// figure is one number of every pipeline.
type figure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*PipelineStatus) float64
}

var pipelineLabels = []string{"partition", "remote"}

func newCollector(s *Source) *collector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		labels := append(append([]string(nil), pipelineLabels...), more...)
		return prometheus.NewDesc("replicanode_duplication_"+name, help, labels, nil)
	}
	gauge := func(name, help string, value func(*PipelineStatus) float64) figure {
		return figure{desc: desc(name, help), kind: prometheus.GaugeValue, value: value}
	}
	counter := func(name, help string, value func(*PipelineStatus) float64) figure {
		return figure{desc: desc(name, help), kind: prometheus.CounterValue, value: value}
	}
	return &collector{
		source: s,
		figures: []figure{
			gauge("lag_seconds", "Time since the oldest unconfirmed mutation was committed.", func(s *PipelineStatus) float64 { return s.Lag.Seconds }),
			gauge("lag_decrees", "Decrees from the confirmed one to the newest that is to be shipped.", func(s *PipelineStatus) float64 { return float64(s.Lag.Decrees) }),
			gauge("lag_bytes", "Bytes of unconfirmed mutations.", func(s *PipelineStatus) float64 { return float64(s.Lag.Bytes) }),
			gauge("confirmed_decree", "Highest decree that the remote has.", func(s *PipelineStatus) float64 { return float64(s.Confirmed) }),
			gauge("in_flight_bytes", "Bytes sent and not confirmed.", func(s *PipelineStatus) float64 { return float64(s.InFlightBytes) }),
			gauge("read_ahead_bytes", "Bytes read from the log and not sent.", func(s *PipelineStatus) float64 { return float64(s.ReadAheadBytes) }),
			counter("shipped_mutations_total", "Mutations sent, repetitions included.", func(s *PipelineStatus) float64 { return float64(s.ShippedMutations) }),
			counter("shipped_bytes_total", "Bytes of mutations sent, repetitions included.", func(s *PipelineStatus) float64 { return float64(s.ShippedBytes) }),
			counter("shipped_batches_total", "Batches sent, repetitions included.", func(s *PipelineStatus) float64 { return float64(s.ShippedBatches) }),
			counter("loaded_bytes_total", "Bytes of mutations sent that were read from the log.", func(s *PipelineStatus) float64 { return float64(s.LoadedBytes) }),
			counter("connects_total", "Streams opened.", func(s *PipelineStatus) float64 { return float64(s.Connects) }),
			counter("skipped_decrees_total", "Decrees that the remote was not given, in fail mode skip.", func(s *PipelineStatus) float64 { return float64(s.SkippedDecrees) }),
			counter("skipped_ranges_total", "Ranges of decrees that the remote was not given, in fail mode skip.", func(s *PipelineStatus) float64 { return float64(s.SkippedRanges) }),
			counter("failures_total", "Streams and reads of the log that failed.", func(s *PipelineStatus) float64 { return float64(s.Failures) }),
		},
		state:   desc("state", "1 for the state that the pipeline is in.", "state"),
		limited: desc("limited_by", "1 for what the pipeline waits for.", "limit"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		out <- f.desc
	}
	out <- c.state
	out <- c.limited
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	for _, p := range c.source.all {
		s := p.status(now)
		partition := strconv.FormatUint(uint64(s.Partition), 10)
		for _, f := range c.figures {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(&s), partition, s.Remote)
		}
		out <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, 1, partition, s.Remote, s.State.String())
		out <- prometheus.MustNewConstMetric(c.limited, prometheus.GaugeValue, 1, partition, s.Remote, s.LimitedBy.String())
	}
}

// receiverMetrics are a Receiver's figures.
type receiverMetrics struct {
	streams, applying         prometheus.Gauge
	batches, mutations, bytes prometheus.Counter
	refusals                  map[peerpb.RefusalReason]prometheus.Counter
}

func newReceiverMetrics(r prometheus.Registerer) (*receiverMetrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "replicanode_duplication_received_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "replicanode_duplication_received_" + name, Help: help})
	}
	m := &receiverMetrics{
		streams:   gauge("streams", "Open streams from other clusters."),
		applying:  gauge("applying_bytes", "Bytes of received batches that are being applied."),
		batches:   counter("batches_total", "Batches from other clusters applied."),
		mutations: counter("mutations_total", "Mutations in applied batches, those that were here already included."),
		bytes:     counter("bytes_total", "Bytes of applied batches."),
		refusals:  make(map[peerpb.RefusalReason]prometheus.Counter),
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "replicanode_duplication_received_refusals_total", Help: "Streams from other clusters refused, by reason.",
	}, []string{"reason"})
	for value := range peerpb.RefusalReason_name {
		reason := peerpb.RefusalReason(value)
		m.refusals[reason] = refusals.WithLabelValues(reasonLabel(reason))
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.streams, m.applying, m.batches, m.mutations, m.bytes, refusals} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register duplication receiver metrics: %w", err)
		}
	}
	return m, nil
}

func (m *receiverMetrics) refused(reason peerpb.RefusalReason) { m.refusals[reason].Inc() }
