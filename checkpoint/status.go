package checkpoint

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// PartitionStatus says how one partition's checkpoints are doing.
type PartitionStatus struct {
	Partition uint32 `json:"partition"`
	// Queued counts on-demand jobs that have not ended, the running one included.
	Queued int `json:"queued"`
	// Running describes the copy being made; nil when none is.
	Running *RunStatus `json:"running,omitempty"`
	// Last is the newest good checkpoint; nil when there is none.
	Last *Summary `json:"last,omitempty"`
	// Failures counts failed attempts since the start.
	Failures uint64 `json:"failures"`
	// LastError is why the newest attempt failed; empty after a success.
	LastError string `json:"last_error,omitempty"`
}

// RunStatus is the progress of a running copy.
type RunStatus struct {
	Started  time.Time `json:"started"`
	Decree   uint64    `json:"decree"`
	Entries  uint64    `json:"entries"`
	RawBytes uint64    `json:"raw_bytes"`
	Bytes    int64     `json:"bytes"`
	// ExpectedRawBytes is an estimate of RawBytes at the end: that of the newest
	// checkpoint of the same kind, full or incremental, or else from the sizes of the
	// partition's tables and log; 0 when nothing tells.
	ExpectedRawBytes uint64 `json:"expected_raw_bytes"`
}

// Summary is the short form of a manifest.
type Summary struct {
	Decree   uint64    `json:"decree"`
	Parent   uint64    `json:"parent"`
	Created  time.Time `json:"created"`
	Entries  uint64    `json:"entries"`
	RawBytes uint64    `json:"raw_bytes"`
	Bytes    int64     `json:"bytes"`
	// Seconds is how long it took; 0 for one made before the start.
	Seconds float64 `json:"seconds"`
}

func summary(m *Manifest) *Summary {
	return &Summary{Decree: m.Decree, Parent: m.Parent, Created: m.Created,
		Entries: m.Entries, RawBytes: m.RawBytes, Bytes: m.Bytes}
}

// Status describes all partitions, in the order of the sources.
func (s *Service) Status() []PartitionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]PartitionStatus, len(s.order))
	for i, p := range s.order {
		st := p.state
		if st.Last != nil {
			last := *st.Last
			st.Last = &last
		}
		if p.run != nil {
			st.Running = &RunStatus{
				Started: p.begun, Decree: p.run.Decree.Load(), Entries: p.run.Entries.Load(),
				RawBytes: p.run.RawBytes.Load(), Bytes: p.run.Bytes.Load(),
			}
			st.Running.ExpectedRawBytes = p.expected()
		}
		out[i] = st
	}
	return out
}

// metrics of one service.
type metrics struct {
	duration prometheus.Histogram
	done     prometheus.Counter
	failures prometheus.Counter
	bytes    prometheus.Counter
	pruned   prometheus.Counter

	pruneFailures prometheus.Counter
	nodesDone     prometheus.Counter
	nodesFailed   prometheus.Counter
}

func newMetrics(s *Service, reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "replicanode_checkpoint_" + name, Help: help})
	}
	m := &metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "replicanode_checkpoint_duration_seconds",
			Help: "How long successful checkpoints of one partition took.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 12)}),
		done:     counter("created_total", "Checkpoints made."),
		failures: counter("failures_total", "Attempts to make a checkpoint that failed."),
		bytes:    counter("bytes_total", "Bytes of checkpoint chunks written."),
		pruned:   counter("pruned_total", "Checkpoints removed because the retention let them go."),

		pruneFailures: counter("prune_failures_total", "Times that old checkpoints could not be removed."),
		nodesDone:     counter("node_created_total", "Checkpoints of the whole node made."),
		nodesFailed:   counter("node_failures_total", "Checkpoints of the whole node that failed for good."),
	}
	if reg != nil {
		reg.MustRegister(m.duration, m.done, m.failures, m.bytes, m.pruned, m.pruneFailures, m.nodesDone, m.nodesFailed, newCollector(s))
	}
	return m
}

// collector reports gauges from the service's state when it is asked.
type collector struct {
	s       *Service
	age     *prometheus.Desc
	running *prometheus.Desc
	waiting *prometheus.Desc
	limit   *prometheus.Desc
	share   *prometheus.Desc
	nodeAge *prometheus.Desc
	nodeOf  *prometheus.Desc
	nodeIs  *prometheus.Desc
	away    *prometheus.Desc
}

func newCollector(s *Service) *collector {
	return &collector{
		s: s,
		age: prometheus.NewDesc("replicanode_checkpoint_last_success_age_seconds",
			"Age of the partition's newest good checkpoint; +Inf when there is none.", []string{"partition"}, nil),
		running: prometheus.NewDesc("replicanode_checkpoint_running", "Checkpoints being made.", nil, nil),
		waiting: prometheus.NewDesc("replicanode_checkpoint_waiting", "Checkpoints that wait for the limit.", nil, nil),
		limit:   prometheus.NewDesc("replicanode_checkpoint_limit", "How many checkpoints may be made at once now.", nil, nil),
		share: prometheus.NewDesc("replicanode_checkpoint_share_ratio",
			"Part of all processors that checkpoints may take now, by what clients need; 1 when nothing bounds it.", nil, nil),
		nodeAge: prometheus.NewDesc("replicanode_checkpoint_node_last_success_age_seconds",
			"Age of the newest complete checkpoint of the whole node; +Inf when there is none.", nil, nil),
		nodeOf: prometheus.NewDesc("replicanode_checkpoint_node_partitions",
			"Partitions of the node's checkpoint that is being made, by state; all 0 while none is.", []string{"state"}, nil),
		nodeIs: prometheus.NewDesc("replicanode_checkpoint_node_progress_ratio",
			"How much of the node's checkpoint is made, 0 to 1; 0 while none is being made.", nil, nil),
		away: prometheus.NewDesc("replicanode_checkpoint_store_silent_seconds",
			"How long the store of checkpoints has not answered; 0 while it does, and while nothing is asked of it.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.age
	ch <- c.running
	ch <- c.waiting
	ch <- c.limit
	ch <- c.share
	ch <- c.nodeAge
	ch <- c.nodeOf
	ch <- c.nodeIs
	ch <- c.away
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := c.s.o.Create.Now()
	for _, st := range c.s.Status() {
		age := math.Inf(1)
		if st.Last != nil {
			age = now.Sub(st.Last.Created).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, age, strconv.FormatUint(uint64(st.Partition), 10))
	}
	allowed, running, waiting := c.s.limit.figures()
	ch <- prometheus.MustNewConstMetric(c.running, prometheus.GaugeValue, float64(running))
	ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(waiting))
	ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(allowed))
	ch <- prometheus.MustNewConstMetric(c.share, prometheus.GaugeValue, c.s.o.Pace.taken())
	silent := 0.0
	if since, err := c.s.o.Store.Trouble(); err != nil {
		silent = time.Since(since).Seconds()
	}
	ch <- prometheus.MustNewConstMetric(c.away, prometheus.GaugeValue, silent)
	c.collectNode(ch, now)
}

func (c *collector) collectNode(ch chan<- prometheus.Metric, now time.Time) {
	st := c.s.NodeStatus()
	age := math.Inf(1)
	if st.Last != nil {
		age = now.Sub(st.Last.Created).Seconds()
	}
	ch <- prometheus.MustNewConstMetric(c.nodeAge, prometheus.GaugeValue, age)
	var run NodeRunStatus
	if st.Running != nil {
		run = *st.Running
	}
	for _, n := range []struct {
		state string
		n     int
	}{{"done", run.Done}, {"failed", run.Failed}, {"open", run.Partitions - run.Done - run.Failed}} {
		ch <- prometheus.MustNewConstMetric(c.nodeOf, prometheus.GaugeValue, float64(n.n), n.state)
	}
	ch <- prometheus.MustNewConstMetric(c.nodeIs, prometheus.GaugeValue, run.Progress)
}
