package plog

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of all logs of a node.
type Metrics struct {
	appendSeconds prometheus.Histogram
	syncSeconds   prometheus.Histogram
	batchRecords  prometheus.Histogram
	groupBytes    prometheus.Histogram
	written       prometheus.Counter
	readBytes     prometheus.Counter
	readRecords   prometheus.Counter
	releasedSegs  prometheus.Counter
	diskFulls     prometheus.Counter
	failures      prometheus.Counter
	corruptions   *prometheus.CounterVec

	roundLogs          prometheus.Histogram
	journalBytes       prometheus.Counter
	journalFallbacks   prometheus.Counter
	journalCheckpoints prometheus.Counter

	descs [7]*prometheus.Desc
	mu    sync.Mutex
	logs  map[*Log]string // partition label
}

// NewMetrics returns metrics registered with reg (nil: not registered).
func NewMetrics(reg prometheus.Registerer) *Metrics {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "replicanode_plog_" + name, Help: help, Buckets: buckets})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "replicanode_plog_" + name, Help: help})
	}
	seconds := prometheus.ExponentialBuckets(25e-6, 2, 18)
	m := &Metrics{
		appendSeconds: histogram("append_seconds", "Time from the first append of a group until it is durable.", seconds),
		syncSeconds:   histogram("sync_seconds", "Time of one fdatasync.", seconds),
		batchRecords:  histogram("group_records", "Records made durable by one sync.", prometheus.ExponentialBuckets(1, 2, 15)),
		groupBytes:    histogram("group_bytes", "Bytes made durable by one sync.", prometheus.ExponentialBuckets(128, 4, 11)),
		written:       counter("written_bytes_total", "Bytes written to segments."),
		readBytes:     counter("read_bytes_total", "Bytes read from segments."),
		readRecords:   counter("read_records_total", "Records returned by readers."),
		releasedSegs:  counter("released_segments_total", "Segments released."),
		diskFulls:     counter("disk_full_total", "Groups refused for lack of space."),
		failures:      counter("failures_total", "Logs that died of a failed write or sync."),
		corruptions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "replicanode_plog_corruptions_total",
			Help: "Damaged places found, by kind."}, []string{"kind"}),
		roundLogs: histogram("journal_round_logs", "Logs made durable by one block of the journal; its count is the number of blocks.",
			prometheus.ExponentialBuckets(1, 2, 11)),
		journalBytes:       counter("journal_written_bytes_total", "Bytes written to the journal, padding included."),
		journalFallbacks:   counter("journal_fallbacks_total", "Logs that synced themselves because the journal had no room or had failed."),
		journalCheckpoints: counter("journal_checkpoints_total", "Halves of the journal emptied after the segments they cover were synced."),
		logs:               map[*Log]string{},
	}
	for _, kind := range kinds {
		m.corruptions.WithLabelValues(string(kind)) // a counter that begins with its first count shows no increase
	}
	for i, d := range [...][2]string{{"bytes", "Bytes of the log's files."}, {"segments", "Segments held."},
		{"recycled", "Segments made from a released one."}, {"first_decree", "Oldest decree held."},
		{"durable_decree", "Newest decree on disk."}, {"committed_decree", "Newest committed decree."},
		{"pending_bytes", "Appended bytes that are not durable yet."}} {
		m.descs[i] = prometheus.NewDesc("replicanode_plog_"+d[0], d[1], []string{"partition"}, nil)
	}
	if reg != nil {
		reg.MustRegister(m.appendSeconds, m.syncSeconds, m.batchRecords, m.groupBytes, m.written, m.readBytes, m.readRecords,
			m.releasedSegs, m.diskFulls, m.failures, m.corruptions, m.roundLogs, m.journalBytes, m.journalFallbacks, m.journalCheckpoints, gauges{m})
	}
	return m
}

// gauges collects the figures of each open log when asked.
type gauges struct{ m *Metrics }

func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.m.descs {
		ch <- d
	}
}

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	for l, partition := range g.m.logs {
		st := l.Stats()
		for i, v := range [...]float64{float64(st.Bytes), float64(st.Segments), float64(st.Recycled), float64(st.First),
			float64(st.Durable), float64(st.Committed), float64(st.Pending)} {
			ch <- prometheus.MustNewConstMetric(g.m.descs[i], prometheus.GaugeValue, v, partition)
		}
	}
}

// logMetrics is one log's view of Metrics; nil counts nothing.
type logMetrics struct {
	*Metrics
	l         *Log
	partition string
}

func (m *Metrics) forLog(partition uint32) *logMetrics {
	if m == nil {
		return nil
	}
	return &logMetrics{Metrics: m, partition: strconv.FormatUint(uint64(partition), 10)}
}

func (m *logMetrics) open(l *Log) {
	if m == nil {
		return
	}
	m.l = l
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs[l] = m.partition
}

func (m *logMetrics) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.logs, m.l)
}

func (m *logMetrics) synced(d time.Duration) {
	if m != nil {
		m.syncSeconds.Observe(d.Seconds())
	}
}

func (m *logMetrics) wrote(c *chunk) {
	if m != nil {
		m.written.Add(float64(c.end - c.start))
	}
}

// round counts a block of the journal.
func (m *Metrics) round(d time.Duration, logs, bytes int) {
	if m == nil {
		return
	}
	m.syncSeconds.Observe(d.Seconds())
	m.roundLogs.Observe(float64(logs))
	m.journalBytes.Add(float64(bytes))
}

func (m *Metrics) journalFallback(logs int) {
	if m != nil {
		m.journalFallbacks.Add(float64(logs))
	}
}

func (m *Metrics) journalCheckpoint() {
	if m != nil {
		m.journalCheckpoints.Inc()
	}
}

func (m *logMetrics) committed(d time.Duration, c *chunk) {
	if m == nil {
		return
	}
	m.appendSeconds.Observe(d.Seconds())
	m.batchRecords.Observe(float64(c.entries))
	m.groupBytes.Observe(float64(c.end - c.start))
}

func (m *logMetrics) read(bytes int64, records uint64) {
	if m == nil || bytes == 0 && records == 0 {
		return
	}
	m.readBytes.Add(float64(bytes))
	m.readRecords.Add(float64(records))
}

func (m *logMetrics) released(segments int) {
	if m != nil {
		m.releasedSegs.Add(float64(segments))
	}
}

func (m *logMetrics) diskFull() {
	if m != nil {
		m.diskFulls.Inc()
	}
}

func (m *logMetrics) failure() {
	if m != nil {
		m.failures.Inc()
	}
}

func (m *logMetrics) corruption(kind Kind) {
	if m != nil {
		m.Metrics.corruption(kind)
	}
}

func (m *Metrics) corruption(kind Kind) {
	if m != nil {
		m.corruptions.WithLabelValues(string(kind)).Inc()
	}
}
